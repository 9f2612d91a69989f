package echotest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
)

const echodPackage = "github.com/echod/echod/daemon/echod"

// Build builds echod into a directory, at the version that the module of the test requires, and answers its path. Flags are
// those of go build, as in "-race". It is for tests that start many, from [Main] on, or that want a build of their own; it needs
// the go command.
func Build(dir string, flags ...string) (path string, err error) {
	path, err = filepath.Abs(filepath.Join(dir, "echod"))
	if err != nil {
		return "", fmt.Errorf("cannot build echod: %w", err)
	}
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	args := append([]string{"build", "-o", path}, flags...)
	if out, err := exec.Command("go", append(args, echodPackage)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build echod: %w\n%s"+
			"If the module of the test lacks what echod needs, this adds it: go get -tool %s", err, out, echodPackage)
	}
	return path, nil
}
