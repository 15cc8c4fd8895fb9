package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
)

// progressEvery is how often is told how far a pull has come.
const progressEvery = 5 * time.Second

// ErrNoImage is why a kind is not offered whose image would have to be pulled.
var ErrNoImage = errors.New("its image is not here")

// pull is one download that all who want the image wait for. Its error is set
// before done is closed.
type pull struct {
	done chan struct{}
	err  error
}

// ensure returns nil when an image is there, after pulling it if it may.
func (d *Driver) ensure(ctx context.Context, name string, may bool) error {
	_, err := d.api.ImageInspect(ctx, name)
	switch {
	case err == nil:
		return nil
	case !errdefs.IsNotFound(err):
		return err
	case !may:
		return fmt.Errorf("%w (docker pull %s)", ErrNoImage, name)
	}
	d.mu.Lock()
	p := d.pulls[name]
	if p == nil {
		p = &pull{done: make(chan struct{})}
		d.pulls[name] = p
		go func() {
			// Whoever asked first may leave; the others still wait. What has
			// come by the end of this process, the daemon keeps.
			p.err = d.pull(context.WithoutCancel(ctx), name)
			d.mu.Lock()
			// Taken off the list before the others are told: whoever comes
			// after a failure begins a new download.
			delete(d.pulls, name)
			d.mu.Unlock()
			close(p.done)
		}()
	}
	d.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pull downloads an image and tells how far it is.
func (d *Driver) pull(ctx context.Context, name string) error {
	d.o.Log.Info("pulling image", slog.String("image", name))
	r, err := d.api.ImagePull(ctx, name, image.PullOptions{})
	if err != nil {
		return fmt.Errorf("its image can't be pulled: %w", err)
	}
	defer r.Close()
	var got progress
	in, told := json.NewDecoder(r), time.Now()
	for {
		var m message
		err := in.Decode(&m)
		switch {
		case errors.Is(err, io.EOF):
			d.o.Log.Info("image pulled", slog.String("image", name))
			return nil
		case err != nil:
			return fmt.Errorf("its image can't be pulled: %w", err)
		// A failure arrives as a line in a stream that began well.
		case m.Error != "":
			return fmt.Errorf("its image can't be pulled: %s", m.Error)
		}
		got.add(m)
		if have, all := got.sum(); all > 0 && time.Since(told) >= cmp.Or(d.o.progress, progressEvery) {
			told = time.Now()
			d.o.Log.Info("pulling image", slog.String("image", name), slog.Int64("bytes", have), slog.Int64("of", all))
		}
	}
}

// message is one line that the daemon writes about a pull.
type message struct {
	ID       string `json:"id"` // of a layer
	Status   string `json:"status"`
	Error    string `json:"error"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
}

// progress is how much of each layer is here.
type progress map[string]*struct{ have, all int64 }

// The daemon tells of layers side by side and in many words; only those of a
// download count here.
func (p *progress) add(m message) {
	if *p == nil {
		*p = progress{}
	}
	l := (*p)[m.ID]
	switch {
	case m.Status == "Downloading" && m.Progress.Total > 0:
		if l == nil {
			l = &struct{ have, all int64 }{}
			(*p)[m.ID] = l
		}
		l.have, l.all = m.Progress.Current, m.Progress.Total
	case l != nil: // it is being checked or unpacked: its download has ended
		l.have = l.all
	}
}

func (p *progress) sum() (have, all int64) {
	for _, l := range *p {
		have, all = have+l.have, all+l.all
	}
	return have, all
}
