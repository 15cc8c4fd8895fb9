package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether f shows what is written to it to a person. A
// character device alone may as well be /dev/null.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
