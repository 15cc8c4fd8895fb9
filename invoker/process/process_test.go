package process

import (
	"os"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

func TestMain(m *testing.M) {
	MaybeShim()
	os.Exit(m.Run())
}

// newDriver returns a driver that is closed with the test.
func newDriver(t *testing.T, o Options) *Driver {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	d, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return d
}

// The contract holds however much of isolation there is.
func TestProcess(t *testing.T) {
	for _, tt := range []struct {
		name  string
		kinds string // prefix of those to test
		Options
	}{
		{"isolated", "", Options{}},
		{"no control groups", "python", Options{noCgroups: true}},
		{"bare", "nodejs", Options{bare: true, noCgroups: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			invokertest.Suite{
				New:      func(t *testing.T) invoker.Driver { return newDriver(t, tt.Options) },
				Runtimes: invoker.DefaultRuntimes().Keep(func(r whisk.Runtime) bool { return strings.HasPrefix(r.Kind, tt.kinds) }),
				Python3:  true,
			}.Run(t)
		})
	}
}
