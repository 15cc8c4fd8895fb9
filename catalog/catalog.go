// Package catalog reads the manifests of packages and yields the entities that
// they describe.
//
// A package is a folder with a manifest.yaml in OpenWhisk's wskdeploy format,
// of which the part is read that the built-in packages need: packages with
// parameters and annotations, and actions whose runtime is builtin. Whatever
// else a manifest says is refused with its file and line, never ignored. The
// catalog does not know where entities are kept or who runs them.
package catalog

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/millrace/millrace/internal/whisk"
)

// manifestName is the file that makes a folder a package.
const manifestName = "manifest.yaml"

// Catalog is a set of packages, sorted by name.
type Catalog struct {
	Packages []Package
}

// Package is what a manifest says of one package.
type Package struct {
	Name        string
	Version     string // of the release; not the stored entity's
	License     string // an SPDX identifier
	Public      bool   // every namespace may see and bind it
	Annotations whisk.Params
	Parameters  whisk.Params
	Actions     []Action // sorted by name
	Readme      string   // the folder's README.md; empty when there is none
}

// Action is what a manifest says of one action.
type Action struct {
	Name        string
	Function    string // the Go function behind it, as in "alarms/alarm"
	Annotations whisk.Params
	Parameters  whisk.Params
	Limits      whisk.Limits
}

// Load reads the manifest of every folder of fsys that has one. It returns
// Invalid with every fault of every manifest, each with its file and line.
func Load(fsys fs.FS) (*Catalog, error) {
	files, err := fs.Glob(fsys, "*/"+manifestName)
	if err != nil {
		return nil, whisk.E(whisk.Internal, "load catalog", err)
	}
	c := &Catalog{}
	var faults []error
	from := map[string]string{}
	for _, file := range files {
		pkgs, errs := load(fsys, file)
		faults = append(faults, errs...)
		for _, p := range pkgs {
			// A manifest may hold packages of any name, so folders do not keep
			// them apart.
			if other, twice := from[p.Name]; twice {
				faults = append(faults, fmt.Errorf("%s: package %s is in %s already", file, p.Name, other))
				continue
			}
			from[p.Name] = file
			c.Packages = append(c.Packages, p)
		}
	}
	if len(faults) > 0 {
		return nil, whisk.E(whisk.Invalid, "load catalog", errors.Join(faults...))
	}
	// Folders come by their own names, which need not be those of the
	// packages.
	slices.SortFunc(c.Packages, func(a, b Package) int { return cmp.Compare(a.Name, b.Name) })
	return c, nil
}

// load reads one manifest and the README beside it.
func load(fsys fs.FS, file string) ([]Package, []error) {
	data, err := fs.ReadFile(fsys, file)
	if err != nil {
		return nil, []error{err}
	}
	readme, err := fs.ReadFile(fsys, path.Join(path.Dir(file), "README.md"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, []error{err}
	}
	r := &reader{file: file}
	pkgs := r.manifest(data)
	for i := range pkgs {
		pkgs[i].Readme = string(readme)
	}
	return pkgs, r.faults
}

// Entities returns the entities of p in a namespace, as a client's PUT would
// leave them; the writer sets when they were updated.
func (p *Package) Entities(namespace string) (whisk.Package, []whisk.Action) {
	// OpenWhisk counts the version of an entity by its changes; that of a
	// release is in the manifest.
	const version = "0.0.1"
	pkg := whisk.Package{
		Meta: whisk.Meta{
			Name: whisk.Name{Namespace: namespace, Entity: p.Name}, Version: version,
			Publish: p.Public, Annotations: p.Annotations,
		},
		Parameters: p.Parameters,
	}
	actions := make([]whisk.Action, 0, len(p.Actions))
	for _, a := range p.Actions {
		actions = append(actions, whisk.Action{
			Meta: whisk.Meta{
				Name: whisk.Name{Namespace: namespace, Package: p.Name, Entity: a.Name}, Version: version,
				Publish: p.Public, Annotations: a.Annotations,
			},
			Parameters: a.Parameters,
			Exec:       whisk.Exec{Kind: whisk.KindBuiltin, Code: a.Function},
			Limits:     a.Limits,
		})
	}
	return pkg, actions
}

// annotations adds what the platform notes on every action of its own accord.
// What a manifest says of the key is kept, what it says of exec is not.
func annotations(given whisk.Params) whisk.Params {
	if given.Get("provide-api-key") == nil {
		// As the API does for every new action: a missing annotation would
		// mean yes.
		given = given.Set("provide-api-key", "false")
	}
	return given.With(whisk.Param{Key: "exec", Value: json.RawMessage(`"` + whisk.KindBuiltin + `"`)})
}
