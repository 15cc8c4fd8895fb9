package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// Right is something that can be done to a resource.
type Right string

// The rights, as OpenWhisk has them, and Manage: to make and end keys, and, for
// an Admin, namespaces.
const (
	Read     Right = "READ"
	Put      Right = "PUT"
	Delete   Right = "DELETE"
	Activate Right = "ACTIVATE" // to fire a trigger, to invoke an action, to set a rule's status
	Manage   Right = "MANAGE"
)

// Collection is a sort of resource, as addresses spell it.
type Collection string

// The collections.
const (
	Actions     Collection = "actions"
	Triggers    Collection = "triggers"
	Rules       Collection = "rules"
	Packages    Collection = "packages"
	Activations Collection = "activations"
	Limits      Collection = "limits"
	KeyRing     Collection = "keys"
)

// Resource is what a request is about: an entity or, where Name.Entity is
// empty, the list of a collection in a namespace or in a package of it.
type Resource struct {
	Collection Collection
	Name       whisk.Name
}

// String returns the resource as refusals show it: ns, ns/pkg, ns/name or
// ns/pkg/name.
func (r Resource) String() string {
	if r.Name.Entity == "" {
		return r.Name.Dir()
	}
	return r.Name.Path()
}

// PackageTable is where packages are looked up, to know which are shared. Get
// answers from memory: NotFound when there is none, Conflict when another kind
// of entity has the name.
type PackageTable interface {
	Get(n whisk.Name) (whisk.Package, whisk.Revision, error)
}

// Allow returns nil when id may do right to every one of refs: because its
// role says so in its own namespace, or because the package is shared. Else it
// returns Forbidden with OpenWhisk's text, which names all that are refused. It
// returns NotFound where the caller owns a package that would decide and is
// missing, Conflict when it is not a package, and Unprocessable for a binding to
// itself.
func Allow(id Identity, right Right, packages PackageTable, refs ...Resource) error {
	g := gate{id, packages}
	var refused []string
	var first error
	for _, r := range refs {
		err := g.check(right, r)
		switch {
		case err == nil:
		case errors.Is(err, whisk.Forbidden):
			refused = append(refused, r.String())
		case first == nil:
			first = err
		}
	}
	if len(refused) == 0 {
		return first
	}
	slices.Sort(refused)
	return whisk.E(whisk.Forbidden, "authorize", fmt.Errorf(
		"The supplied authentication is not authorized to access '%s'.", strings.Join(slices.Compact(refused), ", ")))
}

var errRefused = errors.New("The supplied authentication is not authorized to access this resource.")

// Refused returns OpenWhisk's bare 403: for what has no name to tell.
func Refused() error { return whisk.E(whisk.Forbidden, "authorize", errRefused) }

// grants reports whether a role has a right in its own namespace.
func (r Role) grants(right Right) bool {
	switch r {
	case Owner, Admin:
		return true
	case Editor:
		return right != Manage
	case Invoker:
		return right == Activate
	case Viewer:
		return right == Read
	default:
		return false
	}
}

// gate decides on single resources. Its refusals are Forbidden without a name.
type gate struct {
	id       Identity
	packages PackageTable
}

func (g gate) check(right Right, r Resource) error {
	own := r.Name.Namespace == g.id.Namespace
	if !g.id.Role.grants(right) || right == Activate && r.Collection == Rules && g.id.Role == Invoker {
		return Refused() // an invoker starts things; it does not switch rules
	}
	if r.Collection == KeyRing || right == Manage {
		if right == Manage && g.id.Role == Admin {
			return nil
		}
		return ownly(own)
	}
	switch {
	case r.Collection == Packages && r.Name.Entity == "" && right == Read:
		return nil // the list itself shows others no more than what is shared
	case r.Collection == Packages && r.Name.Entity != "" && right == Read:
		err := g.readPackage(r.Name)
		if own && errors.Is(err, whisk.NotFound) {
			return nil // the answer says so itself
		}
		return err
	case r.Collection == Actions && r.Name.Package != "" && (right == Read || right == Activate):
		return g.readPackage(whisk.Name{Namespace: r.Name.Namespace, Entity: r.Name.Package})
	default:
		return ownly(own)
	}
}

func ownly(own bool) error {
	if own {
		return nil
	}
	return Refused()
}

// readPackage decides whether the package n may be read. One's own may, but a
// binding only while its provider may be read; another's when it is shared and
// not a binding.
func (g gate) readPackage(n whisk.Name) error {
	seen := []whisk.Name{}
	for {
		own := n.Namespace == g.id.Namespace
		p, _, err := g.packages.Get(n)
		switch {
		case err != nil && !own && !errors.Is(err, whisk.Internal):
			return Refused() // whether there is one is none of their business
		case errors.Is(err, whisk.NotFound):
			return whisk.E(whisk.NotFound, "authorize", fmt.Errorf("The requested resource '%s' does not exist.", n.Path()))
		case err != nil:
			return err
		case !own && (!p.Publish || !p.Binding.IsZero()):
			return Refused()
		case p.Binding.IsZero():
			return nil
		}
		if seen = append(seen, n); slices.Contains(seen, p.Binding) {
			return whisk.E(whisk.Unprocessable, "authorize", fmt.Errorf("Package binding '%s' contains a circular reference.", n.Entity))
		}
		n = p.Binding
	}
}
