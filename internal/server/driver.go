package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/docker"
	"github.com/millrace/millrace/invoker/process"
)

// driver is what actions run in, with how to let go of it. sandboxed is whether
// an action is kept from what this user may do.
type driver struct {
	invoker.Driver
	sandboxed bool
	note      string // why it was chosen, and how to change that
	close     func() error
}

// runtimes reads the kinds that may be offered.
func (s *Server) runtimes() (whisk.Runtimes, error) {
	if s.o.Config.Runtimes == "" {
		return invoker.DefaultRuntimes(), nil
	}
	name := s.o.Config.Runtimes
	b, err := os.ReadFile(name)
	var path *fs.PathError
	if errors.As(err, &path) {
		return whisk.Runtimes{}, whisk.WithHint(whisk.E(whisk.Invalid, "", fmt.Errorf("cannot read the runtimes in '%s': %w", name, path.Err)),
			"name a runtimes.json with --runtimes, or leave that out for the kinds that Millrace brings")
	}
	if fault := whisk.JSONFault(b); err == nil && fault != "" {
		err = whisk.E(whisk.Invalid, "", errors.New(fault))
	}
	var kinds whisk.Runtimes
	if err == nil {
		kinds, err = whisk.ParseRuntimes(b)
	}
	if err != nil {
		return kinds, whisk.WithHint(whisk.E(whisk.Invalid, "", fmt.Errorf("the runtimes in '%s' are not valid: %s", name, inWords(err))),
			"its format is that of OpenWhisk's runtimes.json")
	}
	return kinds, nil
}

// inWords is what is wrong with a file of JSON, without the names of Go's types.
func inWords(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Sprintf("%s: found %s, which does not belong there", wrong.Field, wrong.Value)
	}
	return strings.TrimPrefix(whisk.Message(err), "json: ")
}

// chooseDriver makes the driver that the settings ask for.
func (s *Server) chooseDriver(ctx context.Context, kinds whisk.Runtimes) (*driver, error) {
	switch s.o.Config.Driver {
	case config.Docker:
		return s.dockerDriver(ctx)
	case config.Auto:
		d, err := s.dockerDriver(ctx)
		if err == nil {
			// Docker without the images counts as none: nothing is downloaded
			// behind a person's back.
			if err = offersAll(ctx, d, kinds); err == nil {
				return d, nil
			}
			d.close() //nolint:errcheck // nothing was made with it
		}
		p, perr := s.processDriver(ctx)
		if perr != nil {
			return nil, perr
		}
		p.note = whyProcesses(err)
		return p, nil
	}
	return s.processDriver(ctx)
}

// dockerDriver makes the driver that runs actions in containers. Images that
// are missing are pulled only for someone who asked for Docker.
func (s *Server) dockerDriver(ctx context.Context) (*driver, error) {
	d, err := docker.New(ctx, docker.Options{
		Dir: s.home.path(workDir), Pull: s.o.Config.Driver == config.Docker, Log: s.o.Log,
	})
	if err != nil {
		return nil, err
	}
	return &driver{Driver: d, sandboxed: true, close: d.Close}, nil
}

// whyProcesses tells a person why Docker was not chosen.
func whyProcesses(err error) string {
	if lacking := (*lackingImages)(nil); errors.As(err, &lacking) {
		return fmt.Sprintf("%s, so actions run as processes; --driver docker pulls them", lacking)
	}
	return fmt.Sprintf("actions run in processes, since Docker can't be used: %s; --driver docker insists on it", whisk.Message(err))
}

// lackingImages is why Docker can't be used when it answers and nothing else
// is in the way.
type lackingImages struct{ names []string }

func (l *lackingImages) Error() string {
	return fmt.Sprintf("Docker answers but lacks images (%s)", strings.Join(l.names, ", "))
}

// offersAll returns why one of the default kinds can't be run.
func offersAll(ctx context.Context, d invoker.Driver, kinds whisk.Runtimes) error {
	var lacking lackingImages
	for _, k := range kinds.All() {
		if !k.Default {
			continue
		}
		switch err := d.Offers(ctx, k); {
		case errors.Is(err, docker.ErrNoImage):
			short := whisk.Image{Name: k.Image.Name, Tag: k.Image.Tag}.String()
			if !slices.Contains(lacking.names, short) {
				lacking.names = append(lacking.names, short)
			}
		case err != nil:
			return whisk.E(whisk.Unavailable, "", fmt.Errorf("%s: %w", k.Kind, err))
		}
	}
	if len(lacking.names) > 0 {
		return whisk.E(whisk.Unavailable, "", &lacking)
	}
	return nil
}

// processDriver makes the driver that runs actions as processes of this
// machine. It hides the data folder from them. Without isolation it is refused
// where strangers could reach the server, unless the settings allow it.
func (s *Server) processDriver(ctx context.Context) (*driver, error) {
	p, err := process.New(ctx, process.Options{Dir: s.home.path(workDir), Hide: []string{s.home.dir}, Log: s.o.Log})
	if err != nil {
		return nil, whisk.WithHint(err, "choose another folder with --data, or Docker with --driver docker")
	}
	d := &driver{Driver: p, sandboxed: p.Isolated(), close: p.Close}
	return d, s.o.Config.Exposed(d.sandboxed)
}
