package controller

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	apiRoot = "/api/v1"
	webRoot = apiRoot + "/web/"
	maxURI  = 8 << 10 // bytes of a request's target
)

// endpoint is one verb on one sort of address under /api/v1/namespaces/{ns}/.
// The table says once what takes which right: a handler can't forget to ask.
type endpoint struct {
	method     string
	path       string // after the namespace
	collection auth.Collection
	right      auth.Right
	handle     func(*call) error
}

// endpoints are all addresses of entities. What is not here is a 404.
func (a *api) endpoints() []endpoint {
	const get, put, post, del = http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete
	return []endpoint{
		{get, "actions", auth.Actions, auth.Read, a.listActions},
		{get, "actions/", auth.Actions, auth.Read, a.listActions},
		{get, "actions/{package}/", auth.Actions, auth.Read, a.listActions},
		{get, "actions/{name}", auth.Actions, auth.Read, a.getAction},
		{put, "actions/{name}", auth.Actions, auth.Put, a.putAction},
		{post, "actions/{name}", auth.Actions, auth.Activate, a.invoke},
		{del, "actions/{name}", auth.Actions, auth.Delete, a.deleteAction},
		{get, "actions/{package}/{name}", auth.Actions, auth.Read, a.getAction},
		{put, "actions/{package}/{name}", auth.Actions, auth.Put, a.putAction},
		{post, "actions/{package}/{name}", auth.Actions, auth.Activate, a.invoke},
		{del, "actions/{package}/{name}", auth.Actions, auth.Delete, a.deleteAction},

		{get, "triggers", auth.Triggers, auth.Read, a.listTriggers},
		{get, "triggers/", auth.Triggers, auth.Read, a.listTriggers},
		{get, "triggers/{name}", auth.Triggers, auth.Read, a.getTrigger},
		{put, "triggers/{name}", auth.Triggers, auth.Put, a.putTrigger},
		{post, "triggers/{name}", auth.Triggers, auth.Activate, a.fire},
		{del, "triggers/{name}", auth.Triggers, auth.Delete, a.deleteTrigger},

		{get, "rules", auth.Rules, auth.Read, a.listRules},
		{get, "rules/", auth.Rules, auth.Read, a.listRules},
		{get, "rules/{name}", auth.Rules, auth.Read, a.getRule},
		{put, "rules/{name}", auth.Rules, auth.Put, a.putRule},
		{post, "rules/{name}", auth.Rules, auth.Activate, a.setRule},
		{del, "rules/{name}", auth.Rules, auth.Delete, a.deleteRule},

		{get, "packages", auth.Packages, auth.Read, a.listPackages},
		{get, "packages/", auth.Packages, auth.Read, a.listPackages},
		{get, "packages/{name}", auth.Packages, auth.Read, a.getPackage},
		{put, "packages/{name}", auth.Packages, auth.Put, a.putPackage},
		{del, "packages/{name}", auth.Packages, auth.Delete, a.deletePackage},

		{get, "activations", auth.Activations, auth.Read, a.listActivations},
		{get, "activations/", auth.Activations, auth.Read, a.listActivations},
		{get, "activations/{id}", auth.Activations, auth.Read, a.getActivation},
		{get, "activations/{id}/logs", auth.Activations, auth.Read, a.getLogs},
		{get, "activations/{id}/result", auth.Activations, auth.Read, a.getResult},

		{get, "limits", auth.Limits, auth.Read, a.getLimits},
		{get, "limits/", auth.Limits, auth.Read, a.getLimits},
		{get, "limits/{key}", auth.Limits, auth.Read, noInnerLimits},
	}
}

// routes builds the router. It knows no verbs but those of the table: chi's own
// answers to others, 404 and 405, are not OpenWhisk's.
func (a *api) routes() http.Handler {
	r := chi.NewRouter()
	// An address with other verbs and no address at all are one to OpenWhisk.
	r.NotFound(a.unrouted)
	r.MethodNotAllowed(a.unrouted)
	r.Get("/", a.getRoot)
	r.Get("/ping", a.ping)
	r.Get(apiRoot, a.getInfo)
	r.Get(apiRoot+"/", a.getInfo)
	r.Get(apiRoot+"/namespaces", a.known(a.listNamespaces))
	r.Get(apiRoot+"/namespaces/", a.known(a.listNamespaces))
	// Who, what, may: in this order, so that a stranger learns nothing of
	// names.
	for _, e := range a.endpoints() {
		r.Method(e.method, apiRoot+"/namespaces/{namespace}/"+e.path, a.known(func(c *call) error {
			if err := a.address(c, e); err != nil {
				return err
			}
			return e.handle(c)
		}))
	}
	return r
}

// ServeHTTP gives the request its transaction ID and finds who answers it.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// First of all: every answer has it, refusals too.
	w.Header()[headerRequestID] = []string{transactionOf(r)}
	if len(r.RequestURI) > maxURI {
		http.Error(w, "414 Request-URI Too Large", http.StatusRequestURITooLong)
		return
	}
	path := cleanPath(r.URL.EscapedPath())
	// Before OPTIONS: a web action may answer that itself.
	if rest, ok := strings.CutPrefix(path, webRoot); ok {
		if at, ok := parseWebPath(rest); ok && webVerb(r.Method) {
			a.web(w, r, at)
			return
		}
	}
	if r.Method == http.MethodOptions {
		options(w, path)
		return
	}
	// The router goes by RawPath where there is one: it always gets it, so that
	// a segment is decoded after the path was split, and once. Copies: the
	// request belongs to the server and to middleware around.
	copied, u := *r, *r.URL
	u.RawPath = path
	copied.URL = &u
	a.router.ServeHTTP(w, &copied)
}

// cleanPath resolves the segments "." and ".." of an encoded path, as clients
// write them in relative references. It is not path.Clean: empty segments and a
// slash at the end mean something.
func cleanPath(path string) string {
	if !strings.Contains(path, "/.") && !strings.Contains(path, "/%2") {
		return path
	}
	segments := strings.Split(path, "/")
	out := make([]string, 0, len(segments))
	for i, s := range segments {
		last := i == len(segments)-1
		switch strings.ReplaceAll(strings.ReplaceAll(s, "%2e", "."), "%2E", ".") {
		case ".":
		case "..":
			// The first element is empty, from the leading slash: above the
			// root is the root.
			if len(out) > 1 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, s)
			continue
		}
		// A path that ends in a dot segment names a folder, with a slash at its
		// end.
		if last {
			out = append(out, "")
		}
	}
	return strings.Join(out, "/")
}

// unrouted answers for addresses that nobody has: under /api/v1 it does not
// tell strangers so.
func (a *api) unrouted(w http.ResponseWriter, r *http.Request) {
	if underAPI(r.URL.RawPath) {
		a.known(func(*call) error { return errNoRoute() })(w, r)
		return
	}
	w.Header().Set("Allow", http.MethodOptions)
	writeError(w, http.StatusMethodNotAllowed, "HTTP method not allowed, supported methods: OPTIONS")
}

// underAPI reports whether a path is of the API, where strangers get a 401.
func underAPI(path string) bool { return path == apiRoot || strings.HasPrefix(path, apiRoot+"/") }

// call is a request whose sender is known.
type call struct {
	*http.Request
	w    http.ResponseWriter
	id   auth.Identity
	name whisk.Name // what is addressed; Entity is empty for a list
}

// known calls h for who has a key, and makes its error an answer. It is the one
// place where an error becomes an answer, but for web actions.
func (a *api) known(h func(*call) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := a.identify(r)
		if err == nil {
			err = h(&call{Request: r, w: w, id: id})
		}
		if err != nil {
			a.fail(w, r, err)
		}
	}
}

// identify returns who sent the request: Unauthorized.
func (a *api) identify(r *http.Request) (auth.Identity, error) {
	uuid, key, err := auth.ParseBasic(r.Header.Get("Authorization"))
	if err != nil {
		// A rejection: the answer is the framework's, without CORS headers.
		return auth.Identity{}, rejection{err}
	}
	id, err := a.Keys.Authenticate(uuid, key)
	if err != nil {
		return auth.Identity{}, rejection{err}
	}
	return id, nil
}

// address reads what the request's path names into c.name and checks that the
// caller has the right that e takes.
func (a *api) address(c *call, e endpoint) error {
	for _, s := range []struct {
		key   string
		into  *string
		check func(string) error
	}{
		{"namespace", &c.name.Namespace, whisk.CheckNamespace},
		{"package", &c.name.Package, whisk.CheckSegment},
		{"name", &c.name.Entity, whisk.CheckSegment},
		{"id", &c.name.Entity, whisk.CheckID},
	} {
		if !strings.Contains(e.path, "{"+s.key+"}") && s.key != "namespace" {
			continue
		}
		// Decoded after the path was split: an encoded slash then is part of a
		// name, and refused as such.
		raw := chi.URLParam(c.Request, s.key)
		if raw == "" {
			return errNoRoute()
		}
		text, err := url.PathUnescape(raw)
		if err != nil {
			return reject(whisk.Invalid, "Illegal request-target: "+err.Error())
		}
		if err := s.check(text); err != nil {
			return rejection{err}
		}
		*s.into = text
	}
	// Before the check of rights: "_" is always allowed its own.
	if c.name.Namespace == whisk.Own {
		c.name.Namespace = c.id.Namespace
	}
	at := auth.Resource{Collection: e.collection, Name: c.name}
	if e.collection == auth.Activations || e.collection == auth.Limits {
		at.Name = whisk.Name{Namespace: c.name.Namespace} // they are their namespace's as a whole
	}
	return a.allow(c.id, e.right, at)
}

// allow is auth.Allow with the text that OpenWhisk has for a missing package.
func (a *api) allow(id auth.Identity, right auth.Right, refs ...auth.Resource) error {
	err := auth.Allow(id, right, a.Packages, refs...)
	if whisk.KindOf(err) == whisk.NotFound && err != nil {
		return errMissing()
	}
	return err
}
