package auth_test

import (
	"errors"
	"testing"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// packageMap answers for the packages that it holds; a name in clash is held
// by another kind of entity.
type packageMap map[string]whisk.Package

const clash = "/me/action"

func (m packageMap) Get(n whisk.Name) (whisk.Package, whisk.Revision, error) {
	if n.String() == clash {
		return whisk.Package{}, 0, whisk.E(whisk.Conflict, "get", errors.New("not in this collection"))
	}
	p, ok := m[n.String()]
	if !ok {
		return whisk.Package{}, 0, whisk.E(whisk.NotFound, "get", errors.New("none"))
	}
	return p, 1, nil
}

func binding(namespace, name string) whisk.Package {
	return whisk.Package{Binding: whisk.Name{Namespace: namespace, Entity: name}}
}

func testPackages() packageMap {
	shared, published := whisk.Package{}, binding("other", "shared")
	shared.Publish, published.Publish = true, true
	return packageMap{
		"/me/mine": {}, "/me/toshared": binding("other", "shared"), "/me/toprivate": binding("other", "private"),
		"/me/tomine": binding("me", "mine"), "/me/tonothing": binding("me", "nothing"), "/me/toself": binding("me", "toself"),
		"/me/tobinding": binding("me", "toshared"), "/me/a": binding("me", "b"), "/me/b": binding("me", "a"),
		"/me/tolost": binding("other", "lost"), "/other/shared": shared, "/other/private": {}, "/other/bound": published,
	}
}

func TestAllow(t *testing.T) {
	packages := testPackages()
	res := func(c auth.Collection, namespace, pkg, entity string) auth.Resource {
		return auth.Resource{Collection: c, Name: whisk.Name{Namespace: namespace, Package: pkg, Entity: entity}}
	}
	const refusal = "The supplied authentication is not authorized to access "
	tests := []struct {
		name  string
		right auth.Right
		ref   auth.Resource
		kind  whisk.Kind // "": allowed
		text  string
	}{
		{"own action", auth.Put, res(auth.Actions, "me", "", "x"), "", ""},
		{"own list", auth.Read, res(auth.Triggers, "me", "", ""), "", ""},
		{"other's action", auth.Read, res(auth.Actions, "other", "", "x"), whisk.Forbidden, refusal + "'other/x'."},
		{"other's list", auth.Read, res(auth.Rules, "other", "", ""), whisk.Forbidden, refusal + "'other'."},
		{"other's trigger", auth.Activate, res(auth.Triggers, "other", "", "t"), whisk.Forbidden, refusal + "'other/t'."},
		{"other's activations", auth.Read, res(auth.Activations, "other", "", "id"), whisk.Forbidden, refusal + "'other/id'."},
		{"other's limits", auth.Read, res(auth.Limits, "other", "", ""), whisk.Forbidden, refusal + "'other'."},
		{"other's packages", auth.Read, res(auth.Packages, "other", "", ""), "", ""},
		{"shared package", auth.Read, res(auth.Packages, "other", "", "shared"), "", ""},
		{"shared package, put", auth.Put, res(auth.Packages, "other", "", "shared"), whisk.Forbidden, refusal + "'other/shared'."},
		{"private package", auth.Read, res(auth.Packages, "other", "", "private"), whisk.Forbidden, refusal + "'other/private'."},
		{"other's missing package", auth.Read, res(auth.Packages, "other", "", "none"), whisk.Forbidden, refusal + "'other/none'."},
		{"other's published binding", auth.Read, res(auth.Packages, "other", "", "bound"), whisk.Forbidden, refusal + "'other/bound'."},
		{"own package", auth.Delete, res(auth.Packages, "me", "", "mine"), "", ""},
		{"own missing package", auth.Read, res(auth.Packages, "me", "", "none"), "", ""},
		{"own name of another kind", auth.Read, res(auth.Packages, "me", "", "action"), whisk.Conflict, "not in this collection"},
		{"binding to shared", auth.Read, res(auth.Packages, "me", "", "toshared"), "", ""},
		{"binding to private", auth.Read, res(auth.Packages, "me", "", "toprivate"), whisk.Forbidden, refusal + "'me/toprivate'."},
		{"binding to private, delete", auth.Delete, res(auth.Packages, "me", "", "toprivate"), "", ""},
		{"binding to lost", auth.Read, res(auth.Packages, "me", "", "tolost"), whisk.Forbidden, refusal + "'me/tolost'."},
		{"binding to own", auth.Read, res(auth.Packages, "me", "", "tomine"), "", ""},
		{"binding to itself", auth.Read, res(auth.Packages, "me", "", "toself"), whisk.Unprocessable, "Package binding 'toself' contains a circular reference."},
		{"bindings in a circle", auth.Read, res(auth.Packages, "me", "", "a"), whisk.Unprocessable, "Package binding 'b' contains a circular reference."},
		{"binding to binding", auth.Read, res(auth.Packages, "me", "", "tobinding"), "", ""},
		{"action through own package", auth.Activate, res(auth.Actions, "me", "mine", "x"), "", ""},
		{"action through missing package", auth.Activate, res(auth.Actions, "me", "none", "x"), whisk.NotFound, "The requested resource 'me/none' does not exist."},
		{"action through dangling binding", auth.Read, res(auth.Actions, "me", "tonothing", "x"), whisk.NotFound, "The requested resource 'me/nothing' does not exist."},
		{"action into missing package", auth.Put, res(auth.Actions, "me", "none", "x"), "", ""},
		{"action through binding to private", auth.Activate, res(auth.Actions, "me", "toprivate", "x"), whisk.Forbidden, refusal + "'me/toprivate/x'."},
		{"shared action", auth.Activate, res(auth.Actions, "other", "shared", "x"), "", ""},
		{"shared action, put", auth.Put, res(auth.Actions, "other", "shared", "x"), whisk.Forbidden, refusal + "'other/shared/x'."},
		{"list of shared package", auth.Read, res(auth.Actions, "other", "shared", ""), "", ""},
		{"list of private package", auth.Read, res(auth.Actions, "other", "private", ""), whisk.Forbidden, refusal + "'other/private'."},
		{"own keys", auth.Manage, res(auth.KeyRing, "me", "", ""), "", ""},
		{"other's keys", auth.Manage, res(auth.KeyRing, "other", "", ""), whisk.Forbidden, refusal + "'other'."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := auth.Allow(auth.Identity{Namespace: "me", Role: auth.Owner}, tt.right, packages, tt.ref)
			if tt.kind == "" {
				if err != nil {
					t.Errorf("Allow = %v, want nil", err)
				}
				return
			}
			if whisk.KindOf(err) != tt.kind || err == nil || whisk.Message(err) != tt.text {
				t.Errorf("Allow = %v, want %s with %q", err, tt.kind, tt.text)
			}
		})
	}
}

func TestAllowNamesAllThatIsRefused(t *testing.T) {
	refs := []auth.Resource{
		{Collection: auth.Triggers, Name: whisk.Name{Namespace: "other", Entity: "t"}},
		{Collection: auth.Actions, Name: whisk.Name{Namespace: "me", Entity: "mine"}},
		{Collection: auth.Actions, Name: whisk.Name{Namespace: "me", Package: "none", Entity: "x"}},
		{Collection: auth.Actions, Name: whisk.Name{Namespace: "other", Entity: "a"}},
		{Collection: auth.Actions, Name: whisk.Name{Namespace: "other", Entity: "a"}},
	}
	err := auth.Allow(auth.Identity{Namespace: "me", Role: auth.Owner}, auth.Read, testPackages(), refs...)
	want := "The supplied authentication is not authorized to access 'other/a, other/t'."
	if !errors.Is(err, whisk.Forbidden) || whisk.Message(err) != want {
		t.Errorf("Allow = %v, want Forbidden with %q", err, want)
	}
	if text := whisk.Message(auth.Refused()); text != "The supplied authentication is not authorized to access this resource." {
		t.Errorf("bare refusal = %q", text)
	}
}

func TestRoles(t *testing.T) {
	rights := []auth.Right{auth.Read, auth.Put, auth.Delete, auth.Activate, auth.Manage}
	tests := map[auth.Role][5]bool{
		auth.Owner:   {true, true, true, true, true},
		auth.Admin:   {true, true, true, true, true},
		auth.Editor:  {true, true, true, true, false},
		auth.Invoker: {false, false, false, true, false},
		auth.Viewer:  {true, false, false, false, false},
		"":           {},
	}
	own := auth.Resource{Collection: auth.Triggers, Name: whisk.Name{Namespace: "me", Entity: "t"}}
	rule := auth.Resource{Collection: auth.Rules, Name: whisk.Name{Namespace: "me", Entity: "r"}}
	shared := auth.Resource{Collection: auth.Actions, Name: whisk.Name{Namespace: "other", Package: "shared", Entity: "x"}}
	keys := auth.Resource{Collection: auth.KeyRing, Name: whisk.Name{Namespace: "other"}}
	for role, want := range tests {
		id := auth.Identity{Namespace: "me", Role: role}
		for i, right := range rights {
			if got := auth.Allow(id, right, testPackages(), own) == nil; got != want[i] {
				t.Errorf("%q may %s its own trigger = %v, want %v", role, right, got, want[i])
			}
		}
		if got := auth.Allow(id, auth.Activate, testPackages(), shared) == nil; got != want[3] {
			t.Errorf("%q may invoke a shared action = %v, want %v", role, got, want[3])
		}
		if got := auth.Allow(id, auth.Activate, testPackages(), rule) == nil; got != want[1] {
			t.Errorf("%q may switch a rule = %v, want %v", role, got, want[1])
		}
		if got := auth.Allow(id, auth.Manage, testPackages(), keys) == nil; got != (role == auth.Admin) {
			t.Errorf("%q may manage another's keys = %v, want %v", role, got, role == auth.Admin)
		}
	}
}
