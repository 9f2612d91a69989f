package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Ready is where a daemon takes calls, once it does. What is switched off is empty. The ready file has it as JSON.
type Ready struct {
	PID    int    `json:"pid"`
	GRPC   string `json:"grpc,omitempty"`
	HTTP   string `json:"http,omitempty"`
	Socket string `json:"socket,omitempty"`
	// NotReady is why the daemon takes calls and cannot do its work all the same; empty: it can, if degraded.
	NotReady string `json:"notReady,omitempty"`
}

func (l *controlListeners) ready() Ready {
	r := Ready{PID: os.Getpid()}
	if l.grpc != nil {
		r.GRPC = l.grpc.Addr().String()
	}
	if l.http != nil {
		r.HTTP = l.http.Addr().String()
	}
	if l.unix != nil {
		r.Socket = l.unix.Addr().String()
	}
	return r
}

// writeReadyFile writes the file whole or not at all: who waits for it may read it the moment it is there.
func writeReadyFile(path string, r Ready) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot encode the ready file: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("cannot write --ready-file %s: %w", path, err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot write --ready-file %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// clearReadyFile removes a ready file of before, so that nobody takes it for ours.
func clearReadyFile(path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("cannot write --ready-file %s: there is something that is no file", path)
	case err == nil:
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("cannot write --ready-file %s: %w", path, shortReason(err))
	}
	return nil
}

// removeReadyFile takes our ready file back. One that is gone already, or that another daemon has written since, is not
// ours to tidy.
func removeReadyFile(path string) error {
	if path == "" || !isOurs(path) {
		return nil
	}
	return os.Remove(path)
}

func isOurs(path string) bool {
	var r Ready
	text, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(text, &r) == nil && r.PID == os.Getpid()
}
