package cli

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/echod/echod/ctl/internal/render"
	"google.golang.org/protobuf/types/known/durationpb"
)

// parseDuration reads "40ms", "1m30s", or a bare number of seconds ("0.2", as ping's options have it).
func parseDuration(text string) (time.Duration, error) {
	unit := ""
	if text != "" && strings.Trim(text, "0123456789.") == "" {
		unit = "s"
	}
	d, err := time.ParseDuration(text + unit)
	if err != nil {
		return 0, errors.New(`say "40ms", "1.5s", "10m" or a number of seconds`)
	}
	if d < 0 {
		return 0, errors.New("must not be negative")
	}
	return d, nil
}

// defaultWord asks for the daemon's default where a flag allows it.
const defaultWord = "default"

// durationFlag is a flag with a duration.
type durationFlag struct {
	value time.Duration
	set   bool
	// orDefault takes the word "default", too; then reset is set and not value.
	orDefault, reset bool
}

func (f *durationFlag) Set(text string) error {
	if f.orDefault && text == defaultWord {
		f.set, f.reset = true, true
		return nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return err
	}
	f.value, f.set, f.reset = d, true, false
	return nil
}

func (f *durationFlag) String() string {
	if f.value == 0 {
		return ""
	}
	return f.value.String()
}

func (f *durationFlag) Type() string { return "DURATION" }

// proto is the value for a request: nil, which is the daemon's default, when there is none.
func (f *durationFlag) proto() *durationpb.Duration {
	if !f.set || f.reset {
		return nil
	}
	return durationpb.New(f.value)
}

// countFlag is a flag with a whole number.
type countFlag struct {
	value            uint32
	set              bool
	orDefault, reset bool
}

func (f *countFlag) Set(text string) error {
	if f.orDefault && text == defaultWord {
		f.set, f.reset = true, true
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("say a whole number from 0 to %d", uint32(math.MaxUint32))
	}
	f.value, f.set, f.reset = uint32(n), true, false
	return nil
}

func (f *countFlag) String() string {
	if f.value == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(f.value), 10)
}

func (f *countFlag) Type() string { return "N" }

// proto is the value for a request: nil, which is the daemon's default, when there is none.
func (f *countFlag) proto() *uint32 {
	if !f.set || f.reset {
		return nil
	}
	return new(f.value)
}

// sizeUnits are what may stand behind the number of a size, in any case.
var sizeUnits = map[string]uint64{
	"": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}

// parseSize reads a number of bytes, with or without a unit.
func parseSize(text string, most uint64) (uint64, error) {
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	unit, ok := sizeUnits[strings.ToLower(text[digits:])]
	if digits == 0 || !ok {
		return 0, errors.New(`say a number of bytes, or as in "64KiB", "10MB", "1G"`)
	}
	n, err := strconv.ParseUint(text[:digits], 10, 64)
	if err != nil || n > most/unit {
		return 0, fmt.Errorf("must be at most %d bytes", most)
	}
	return n * unit, nil
}

// sizeFlag is a flag with a number of bytes. Of every size that it is used for, the daemon's default is 0.
type sizeFlag struct {
	value     uint64
	most      uint64 // 0: as much as a uint64 has room for
	orDefault bool
}

func (f *sizeFlag) Set(text string) error {
	if f.orDefault && text == defaultWord {
		f.value = 0
		return nil
	}
	most := f.most
	if most == 0 {
		most = math.MaxUint64
	}
	n, err := parseSize(text, most)
	if err != nil {
		return err
	}
	f.value = n
	return nil
}

func (f *sizeFlag) String() string {
	if f.value == 0 {
		return ""
	}
	return strconv.FormatUint(f.value, 10)
}

func (f *sizeFlag) Type() string { return "SIZE" }

// labelsFlag is a repeatable flag KEY=VALUE. What characters are allowed is the daemon's to say.
type labelsFlag struct{ values map[string]string }

func (f *labelsFlag) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return errors.New("say KEY=VALUE")
	}
	if f.values == nil {
		f.values = map[string]string{}
	}
	f.values[key] = value
	return nil
}

func (f *labelsFlag) String() string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(f.values)) {
		pairs = append(pairs, key+"="+f.values[key])
	}
	return strings.Join(pairs, ",")
}

func (f *labelsFlag) Type() string { return "KEY=VALUE" }

// formatFlag is --output.
type formatFlag struct {
	format render.Format
	set    bool
}

func (f *formatFlag) Set(text string) error {
	format := render.Format(text)
	if !format.Valid() && format != render.JUnit { // whether the command writes that is for format to say
		return fmt.Errorf("say %s", formatNames())
	}
	f.format, f.set = format, true
	return nil
}

func (f *formatFlag) String() string { return string(f.format) }
func (f *formatFlag) Type() string   { return "FORMAT" }

// formatNames are the formats as a message lists them.
func formatNames() string {
	names := make([]string, len(render.Formats))
	for i, f := range render.Formats {
		names[i] = string(f)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
