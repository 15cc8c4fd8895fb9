package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"millrace": main})
}

// TestScripts runs what a person types. HOME is the script's own folder, so no
// key of this machine is found.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("NO_COLOR", "1")
			for _, v := range []string{"WSK_CONFIG_FILE", "MILLRACE_DATA", "WHISK_AUTH", "WHISK_APIHOST"} {
				e.Setenv(v, "")
			}
			return nil
		},
	})
}
