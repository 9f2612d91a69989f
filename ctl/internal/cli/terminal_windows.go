package cli

import (
	"os"

	"golang.org/x/sys/windows"
)

// enableColors asks the console to obey escape sequences, which older ones do only when asked. False means that it
// would print them instead, so that the output is better treated as no terminal.
func enableColors(f *os.File) bool {
	var mode uint32
	handle := windows.Handle(f.Fd())
	if err := windows.GetConsoleMode(handle, &mode); err != nil {
		return false
	}
	return windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
