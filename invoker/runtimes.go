package invoker

import (
	_ "embed"

	"github.com/millrace/millrace/internal/whisk"
)

//go:embed runtimes.json
var runtimesJSON []byte

// DefaultRuntimes returns the kinds that are on offer when nobody says
// otherwise.
func DefaultRuntimes() whisk.Runtimes {
	r, err := whisk.ParseRuntimes(runtimesJSON)
	if err != nil {
		panic(err) // it is part of this program, and a test reads it
	}
	return r
}
