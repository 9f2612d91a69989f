package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/echod/echod/ctl/internal/lab"
	"github.com/spf13/cobra"
)

// stdinFile is the file that stands for standard input.
const stdinFile = "-"

// fileKinds are the files that are read in a folder.
var fileKinds = []string{".yaml", ".yml", ".json"}

// fileOptions are the files that a command reads endpoints from.
type fileOptions struct {
	files     []string
	recursive bool
}

// filesHelp says what files look like, in the help of each command that reads them.
const filesHelp = `A file is YAML or JSON, of one document or several: "endpoints:" and a list of
them, with the field names of REST, and durations as in "40ms". What it leaves
out is the daemon's default. In a folder, every .yaml, .yml and .json is read,
in the order of their names; those in folders below with --recursive; hidden
ones never.`

func (o *fileOptions) addTo(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&o.files, "file", "f", nil,
		"read `FILE`, the files of a folder, or - for standard input; may be repeated")
	cmd.Flags().BoolVarP(&o.recursive, "recursive", "R", false, "read folders in folders, too")
	mustRegister(cmd.MarkFlagFilename("file", "yaml", "yml", "json"))
}

func (o *fileOptions) check() error {
	stdin := 0
	for _, f := range o.files {
		if f == stdinFile {
			stdin++
		}
	}
	switch {
	case len(o.files) == 0:
		return usagef("say what to read: -f FILE")
	case slices.Contains(o.files, ""):
		return usagef("-f \"\" is no file")
	case stdin > 1:
		return usagef("-f - reads standard input, which there is one of")
	}
	return nil
}

// read reads all files into one lab.
func (o *fileOptions) read(stdin io.Reader) (*lab.Lab, error) {
	var sources []lab.Source
	for _, file := range o.files {
		paths := []string{file}
		if info, err := os.Stat(file); file != stdinFile && err == nil && info.IsDir() {
			if paths, err = o.inFolder(file); err != nil {
				return nil, err
			}
		}
		for _, path := range paths {
			source, err := readSource(path, stdin)
			if err != nil {
				return nil, err
			}
			sources = append(sources, source)
		}
	}
	return lab.Read(sources)
}

// inFolder finds the files of a folder. That there is none is an error: it is never meant.
func (o *fileOptions) inFolder(folder string) (paths []string, err error) {
	root := filepath.Clean(folder) + string(filepath.Separator) // with which a link to a folder is that folder
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(entry.Name(), ".")
		switch {
		case err != nil:
			return err
		case path == root:
			return nil
		case entry.IsDir() && (hidden || !o.recursive):
			return fs.SkipDir
		case entry.IsDir() || hidden || !slices.Contains(fileKinds, strings.ToLower(filepath.Ext(path))):
			return nil
		}
		paths = append(paths, path)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the folder %s: %w", folder, cause(err))
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s has no %s file", folder, strings.Join(fileKinds, ", "))
	}
	slices.Sort(paths)
	return paths, nil
}

func readSource(path string, stdin io.Reader) (lab.Source, error) {
	s := lab.Source{Name: path}
	reader := stdin
	if path == stdinFile {
		s.Name = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return s, fmt.Errorf("cannot read %s: %w", path, cause(err))
		}
		defer f.Close() //nolint:errcheck // it was only read
		reader = f
	}
	// One byte more shows that there are more.
	text, err := io.ReadAll(io.LimitReader(reader, lab.MaxFileBytes+1))
	if err != nil {
		return s, fmt.Errorf("cannot read %s: %w", s.Name, cause(err))
	}
	s.Text = text
	return s, nil
}

// cause is an error of the file system without the path, which the message has already.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
