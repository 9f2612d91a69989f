package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// LastRun is how the daemon before this one ended.
type LastRun int

const (
	Unknown LastRun = iota // the state file that could tell is damaged
	First                  // there was none: the directory is new
	Stopped                // in order
	Crashed                // it was killed, or the host went down
)

// Damage is a file that was not what was written.
type Damage struct {
	Path   string // where it was found; it has been renamed since, or will be as soon as the disk can be written to
	Reason error
	// Whole says that every record is there nevertheless: nothing is missing.
	Whole bool
	// Gone says that there was no file: nothing is set aside.
	Gone bool
}

// Report is what Open found.
type Report struct {
	Last    LastRun
	Damaged []Damage
	// Restored is what the good copy says of itself, which stands in for the state file; nil: the state file was good. What was
	// changed after it may be missing.
	Restored *Summary
	// Lost is why nothing can be read or written, and what to do; nil: it can.
	Lost error
	// Accepted says that the state was lost, and that this start is an empty one since Options.AcceptDataLoss said so.
	Accepted bool
}

// Warnings says in sentences what an operator has to know; none when all is well.
func (r Report) Warnings() []string {
	if r.Lost != nil {
		return []string{r.Lost.Error()}
	}
	var all []string
	for _, d := range r.Damaged {
		text := fmt.Sprintf("%s: %v", d.Path, d.Reason)
		if !d.Gone {
			text += fmt.Sprintf("; it is kept as %s%s<time>", d.Path, damagedMiddle)
		}
		if d.Whole {
			text += "; nothing is missing"
		}
		all = append(all, text)
	}
	switch {
	case r.Restored != nil:
		all = append(all, fmt.Sprintf("the state is that of its good copy, generation %d of %s, with %d records: later changes, if there were any, are missing",
			r.Restored.Generation, r.Restored.Changed.Format(time.RFC3339), r.Restored.Records))
	case r.Accepted:
		all = append(all, "the state was lost, and this is an empty start (--accept-data-loss); start without that flag from now on")
	}
	return all
}

// found is what is known of one file.
type found struct {
	image  *image // nil: there is none, or it cannot be trusted
	damage *Damage
}

// choose decides what the state is. It changes no file.
func (s *Store) choose() error {
	main, err := s.examine(fileName)
	if err != nil {
		return err
	}
	good, err := s.examine(copyName)
	if err != nil {
		return err
	}
	if main.image != nil && good.image != nil && main.image.head.Generation < good.image.head.Generation {
		main.damage = &Damage{Path: s.path(fileName), Reason: damaged("it is of generation %d, and its good copy of %d: changes that were kept are missing in it",
			main.image.head.Generation, good.image.head.Generation)}
		main.image = nil
	}
	for name, one := range map[string]found{fileName: main, copyName: good} {
		if one.damage != nil {
			s.report.Damaged = append(s.report.Damaged, *one.damage)
			s.aside = append(s.aside, name)
		}
	}
	if good.image != nil {
		head := good.image.head
		s.copied = &head
	}
	switch {
	case main.image != nil:
		s.image = main.image
		s.report.Last = Stopped
		if main.image.head.Running {
			s.report.Last = Crashed
		}
	case good.image != nil:
		s.image = good.image
		restored := good.image.head
		s.report.Restored = &restored
		if main.damage == nil {
			s.report.Damaged = append(s.report.Damaged, Damage{Path: s.path(fileName), Reason: damaged("it is missing"), Gone: true})
		}
	case main.damage == nil && good.damage == nil:
		s.image = newImage()
		s.report.Last = First
	case s.o.AcceptDataLoss:
		s.image = newImage()
		s.report.Accepted = true
	default:
		s.report.Lost = s.lost(main)
	}
	if s.image != nil {
		s.image.head.Format = formatVersion
	}
	return nil
}

// lost says what is lost and what to do.
func (s *Store) lost(main found) error {
	var reasons []string
	if main.damage == nil {
		reasons = append(reasons, s.path(fileName)+" is missing")
	}
	for _, d := range s.report.Damaged {
		reasons = append(reasons, fmt.Sprintf("%s: %v", d.Path, d.Reason))
	}
	if len(reasons) == 1 {
		reasons = append(reasons, "there is no good copy of it")
	}
	return fmt.Errorf("%w: %s. No file was touched, and nothing can be changed. Stop echod and put a good %s back, or start it once with --accept-data-loss, which sets the damaged files aside and starts empty",
		ErrLost, strings.Join(reasons, "; "), fileName)
}

// examine reads one of the files. The error is why nothing can be said of it.
func (s *Store) examine(name string) (found, error) {
	path := s.path(name)
	m, flaws, err := s.verified(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return found{}, nil
	case errors.Is(err, ErrDamaged):
		return found{damage: &Damage{Path: path, Reason: err}}, nil
	case err != nil:
		return found{}, fmt.Errorf("cannot use the state file %s: %w", path, err)
	}
	f := found{image: m}
	if flaws != "" {
		f.damage = &Damage{Path: path, Reason: damaged("%s", flaws), Whole: true}
	}
	return f, nil
}

// verified has a file checked where it can do no harm, and reads it then.
func (s *Store) verified(path string) (m *image, flaws string, err error) {
	if s.o.Verify == nil {
		m, err = read(path)
		return m, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.o.VerifyTimeout)
	defer cancel()
	says, err := s.o.Verify(ctx, path)
	switch {
	case errors.Is(err, errCannotCheck):
		s.o.Log.Warn("cannot check the state file in a process of its own", "file", path, "reason", err)
	case err != nil:
		return nil, "", err
	}
	checked := err == nil
	if m, err = read(path); err != nil {
		return nil, "", err
	}
	flaws, says.Flaws = says.Flaws, ""
	if checked && m.head != says {
		return nil, "", damaged("it reads otherwise each time")
	}
	return m, flaws, nil
}
