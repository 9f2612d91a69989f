//go:build !unix

package handover

import (
	"errors"
	"os"
)

func newLinks() (*Link, *os.File, error) { return nil, nil, errors.ErrUnsupported }

func newLink(*os.File) (*Link, error) { return nil, errors.ErrUnsupported }

func isHangUp(error) bool { return false }
