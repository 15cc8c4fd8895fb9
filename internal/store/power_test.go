package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// flushed remembers how much of each file flushes have covered.
type flushed struct {
	mu    sync.Mutex
	sizes map[string]int64
}

func (f *flushed) note(fl bus.Flush) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.Copy(f.sizes, fl.Files)
}

// copyTo copies a store as it would be found after a power cut: of each file
// what was flushed, without the server's caches, which it writes unsynced.
func (f *flushed) copyTo(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		size, ok := f.sizes[path]
		if err != nil || e.IsDir() || !ok || e.Name() == "index.db" || e.Name() == "o.dat" {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content[:min(size, int64(len(content)))], 0o600)
	})
}

// TestPowerCut writes, deletes and purges, and cuts the power again and again:
// whatever a call had returned must be found, and nothing deleted may be back.
func TestPowerCut(t *testing.T) {
	ctx := t.Context()
	random := rand.New(rand.NewPCG(1, 2))
	f := &flushed{sizes: map[string]int64{}}
	dir := t.TempDir()
	openOn := func(dir string, note func(bus.Flush)) (*bus.Bus, *Table[string]) {
		t.Helper()
		b, err := bus.Open(ctx, bus.Options{
			Dir: dir, OnFlush: note, SyncInterval: 24 * time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b, testTable[string](t, b, "words")
	}
	_, table := openOn(dir, f.note)
	model := map[whisk.Name]string{}
	for i := range 400 {
		n := whisk.Name{Namespace: "a", Entity: fmt.Sprint("key", random.IntN(12))}
		_, rev, _ := table.Get(n)
		var err error
		switch _, exists := model[n]; {
		case exists && random.IntN(3) == 0:
			err = table.Delete(ctx, n, rev)
			delete(model, n)
		case random.IntN(10) == 0:
			other := whisk.Name{Namespace: "b", Entity: n.Entity}
			_, otherRev, _ := table.Get(other)
			model[n], model[other] = fmt.Sprint(i), fmt.Sprint(i)
			_, err = apply(ctx, table.PutOp(n, model[n], rev), table.PutOp(other, model[other], otherRev))
		default:
			model[n] = fmt.Sprint(i)
			_, err = table.Put(ctx, n, model[n], rev)
		}
		if err != nil && !errors.Is(err, whisk.NotFound) {
			t.Fatal(err)
		}
		if i%50 == 25 {
			if err := table.bucket.purge(ctx, time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		if i%40 != 39 {
			continue
		}
		copied := t.TempDir()
		if err := f.copyTo(dir, copied); err != nil {
			t.Fatal(err)
		}
		b, after := openOn(copied, nil)
		if len(after.List("")) != len(model) {
			t.Errorf("after %d writes and a power cut: %d values, want %d", i+1, len(after.List("")), len(model))
		}
		for n, want := range model {
			if got, _, err := after.Get(n); err != nil || got != want {
				t.Errorf("after %d writes and a power cut: %v = %q, %v, want %q", i+1, n, got, err, want)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
