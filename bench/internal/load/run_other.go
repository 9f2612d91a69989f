//go:build !linux

package load

import "errors"

// Run needs Linux.
func Run(Plan) (Result, error) {
	return Result{}, errors.New("the load generator needs Linux")
}
