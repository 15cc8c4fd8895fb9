package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	publicLink   = "public" // in an instance's folder: where its public one is
	publicPrefix = "millrace-"
)

// becomeNobody lets root's containers without namespaces run as nobody, as
// those with namespaces do: so they cannot read the server's files, which they
// see. For that they need files elsewhere, since nobody gets into the server's
// folder. Where root has not the right to it, or may keep no programs there,
// they stay root's.
func (d *Driver) becomeNobody(ctx context.Context) error {
	var st unix.Statfs_t
	// The launchers are scripts for interpreters, but the action's own
	// programs must be able to run there.
	if err := unix.Statfs(os.TempDir(), &st); err != nil || st.Flags&unix.ST_NOEXEC != 0 {
		return nil //nolint:nilerr // then not
	}
	dir, err := os.MkdirTemp("", publicPrefix)
	if err != nil {
		return nil //nolint:nilerr // then not
	}
	// The link tells a later sweep of the folder. Others may pass through the
	// folder by name but not list it.
	if err := errors.Join(os.Symlink(dir, filepath.Join(d.dir, publicLink)), os.Chmod(dir, 0o711), writeLaunchers(dir)); err != nil { //nolint:gosec // that is what it is for
		return err
	}
	d.public = dir
	// Root may lack the right to become another user, as in some containers:
	// only a try shows it.
	if err := d.probe(ctx); err != nil {
		d.public = ""
		return removePublic(d.dir)
	}
	return nil
}

// home is the folder of what containers read and write.
func (d *Driver) home() string {
	if d.public != "" {
		return d.public
	}
	return d.dir
}

// removePublic removes the public folder of an instance, if it has one.
func removePublic(instance string) error {
	link := filepath.Join(instance, publicLink)
	dir, err := os.Readlink(link)
	// The name is checked, as everything in it is removed.
	if err != nil || !strings.HasPrefix(filepath.Base(dir), publicPrefix) {
		return nil //nolint:nilerr // there is none
	}
	return errors.Join(os.RemoveAll(dir), os.Remove(link))
}
