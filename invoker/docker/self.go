package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/containerd/errdefs"
)

// program puts this program into our folder, where the daemon finds it: the
// file it was started from may lie in an image, or be replaced meanwhile. It
// is the native launcher.
func (d *Driver) program() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path := filepath.Join(d.dir, "millrace")
	// Made by the first container of the kind, used by all.
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err := os.Link(self, path); err == nil { // costs nothing, on one disk
		if st, err := os.Stat(path); err == nil && st.Mode()&0o005 == 0o005 {
			return path, nil
		}
		os.Remove(path) // others may not run it
	}
	return path, copyFile(path, self)
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	// Under another name until it is whole: what is at path is complete, even
	// if a copy was cut off.
	part := to + ".part"
	out, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // the container's user is to run it
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Rename(part, to)
}

// ownContainer finds the id of the container that this process runs in among
// the files that a Docker daemon mounts into one.
var ownContainer = regexp.MustCompile(`/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) `)

// ownNetwork returns the network on which this process reaches the containers
// of images that are spoken to over it. From the machine itself that is the
// bridge; a server that runs in a container of the same daemon, as from a
// compose file, reaches only those on a network of its own.
func (d *Driver) ownNetwork(ctx context.Context) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return bridge, nil //nolint:nilerr // no such system, no such container
	}
	m := ownContainer.FindSubmatch(mounts)
	if m == nil {
		return bridge, nil
	}
	in, err := d.api.ContainerInspect(ctx, string(m[1]))
	switch {
	case errdefs.IsNotFound(err): // it is another daemon's
		return bridge, nil
	case err != nil:
		return "", fmt.Errorf("look for our own container: %w", err)
	case in.NetworkSettings == nil || in.NetworkSettings.Networks[bridge] != nil:
		return bridge, nil
	}
	for _, name := range slices.Sorted(maps.Keys(in.NetworkSettings.Networks)) {
		if name != "host" && name != "none" {
			return name, nil
		}
	}
	return bridge, nil
}
