package controller

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	textUnauthorized = "Authentication is possible but has failed or not yet been provided."
	headerWebAuth    = "X-Require-Whisk-Auth"
)

// webPath is the address of a web action:
// /api/v1/web/ns/pkg/action[.ext][/rest]. It is read before anybody is asked
// for a key, so nothing of it is trusted.
type webPath struct {
	action    whisk.Name // as addressed; it may be no name at all
	extension string     // with its dot; .http when none is given
	rest      string     // with its slash, still encoded; empty when there is none
}

// parseWebPath reads what follows /api/v1/web/ in an encoded path. It returns
// false when that is too short to be the address of an action.
func parseWebPath(path string) (webPath, bool) {
	// Four: whatever follows the action is its own, slashes included.
	parts := strings.SplitN(path, "/", 4)
	if len(parts) < 3 {
		return webPath{}, false
	}
	var at webPath
	for i, into := range []*string{&at.action.Namespace, &at.action.Package, &at.action.Entity} {
		s, err := url.PathUnescape(parts[i])
		if err != nil || s == "" {
			return webPath{}, false
		}
		*into = s
	}
	if at.action.Package == whisk.DefaultPackage {
		at.action.Package = ""
	}
	if len(parts) == 4 {
		at.rest = "/" + parts[3]
	}
	at.extension = ".http"
	// An unknown extension is part of the name.
	for _, ext := range []string{".http", ".json", ".html", ".svg", ".text"} {
		if name, ok := strings.CutSuffix(at.action.Entity, ext); ok {
			at.action.Entity, at.extension = name, ext
			break
		}
	}
	return at, true
}

// webVerb reports whether web actions are called with a method.
func webVerb(method string) bool {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// web answers a request to a web action. Anybody may call it: credentials only
// tell the action who calls.
func (a *api) web(w http.ResponseWriter, r *http.Request, at webPath) {
	owner, run, err := a.exported(at.action)
	if err != nil {
		a.failWeb(w, r, err)
		return
	}
	caller, err := a.identify(r)
	known := err == nil
	if !custom(run.Action.Annotations) {
		webCORS(w.Header(), r)
		// A browser asks before it sends credentials: so it is answered before
		// they are looked at.
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
	}
	// OPTIONS that the action answers itself comes without credentials, too.
	if r.Method != http.MethodOptions && !admitted(run.Action.Annotations, r, known) {
		writeWebError(w, http.StatusUnauthorized, textUnauthorized)
		return
	}
	args, err := a.webArgs(w, r, &run, at, caller.Namespace)
	if err == nil && a.deprecated(run.Action.Exec.Kind) {
		err = errDeprecated(run.Action.Exec.Kind)
	}
	if err != nil {
		a.failWeb(w, r, err)
		return
	}
	// As its owner: the caller may have no key at all, and must not lend the
	// action his rights.
	inv := newInvocation(owner, caller.Origin, transactionOn(w), args)
	w.Header()[headerActivation] = []string{inv.ActivationID}
	act, done, err := a.Delivery.Call(r.Context(), run, inv, whisk.MaxWait)
	switch {
	case err != nil:
		w.Header().Del(headerActivation) // there is none
		a.failWeb(w, r, err)
	case !done:
		writeWebError(w, http.StatusAccepted, "Response not yet ready.")
	default:
		if err := writeWeb(w, r, at.extension, &act); err != nil {
			a.failWeb(w, r, err)
		}
	}
}

// exported finds a web action and whom it runs as. Whatever is wrong with the
// address, the answer is the same: it must not tell what there is.
func (a *api) exported(n whisk.Name) (auth.Identity, whisk.Runnable, error) {
	// A namespace without owner has no actions that could run.
	owner, ok := a.Keys.Owner(n.Namespace)
	if !ok {
		return owner, whisk.Runnable{}, errMissing()
	}
	// A binding is as good as its owner's right to what it is bound to.
	err := auth.Allow(owner, auth.Activate, a.Packages, auth.Resource{Collection: auth.Actions, Name: n})
	if err != nil {
		return owner, whisk.Runnable{}, concealed(err)
	}
	run, err := a.Store.Resolve(n)
	if err != nil {
		return owner, run, concealed(err)
	}
	// Nothing else counts as yes, not even the string "true": that an action is
	// open to strangers must be said exactly.
	if string(run.Action.Annotations.Get("web-export")) != "true" {
		return owner, run, errMissing()
	}
	return owner, run, nil
}

// concealed is a missing resource for every error but our own.
func concealed(err error) error {
	if whisk.KindOf(err) == whisk.Internal {
		return err
	}
	return errMissing()
}

// custom reports whether an action answers OPTIONS itself and sets its own
// CORS headers.
func custom(annotations whisk.Params) bool {
	return string(annotations.Get("web-custom-options")) == "true"
}

// admitted decides by the annotation require-whisk-auth: a secret that the
// request must show, or true for any valid key.
func admitted(annotations whisk.Params, r *http.Request, known bool) bool {
	want := annotations.Get("require-whisk-auth")
	switch {
	case want == nil, string(want) == "false":
		return true
	case string(want) == "true":
		return known
	case want[0] == '"':
		return equalSecret(annotations.Text("require-whisk-auth"), r.Header.Get(headerWebAuth))
	// wsk makes secrets that are numbers, up to 2^53. They are compared as they
	// are written: a float would make different ones equal.
	case want[0] == '-' || want[0] >= '0' && want[0] <= '9':
		return equalSecret(string(want), r.Header.Get(headerWebAuth))
	}
	return false
}

// Names that a web action's arguments have for what is not the caller's to
// give.
const (
	owMethod  = "__ow_method"
	owHeaders = "__ow_headers"
	owPath    = "__ow_path"
	owUser    = "__ow_user"
	owQuery   = "__ow_query"
	owBody    = "__ow_body"
)

// reserved reports whether an argument is the server's to give.
func reserved(key string) bool {
	switch key {
	case owMethod, owHeaders, owPath, owUser, owQuery, owBody:
		return true
	}
	return false
}

// webArgs makes the arguments of a web action out of a request. user is the
// namespace of its sender, empty if that is not known.
func (a *api) webArgs(w http.ResponseWriter, r *http.Request, run *whisk.Runnable, at webPath, user string) (json.RawMessage, error) {
	body, err := readSmall(w, r)
	if err != nil {
		return nil, err
	}
	args := map[string]any{}
	if string(run.Action.Annotations.Get("raw-http")) == "true" {
		args[owQuery], args[owBody] = r.URL.RawQuery, rawBody(r, body)
	} else {
		if err := mergeRequest(args, r, body); err != nil {
			return nil, err
		}
		// Checked on the arguments by name, before the body as a whole is added
		// under a reserved one. Raw actions take no arguments by name, so there
		// is nothing to check.
		fixed := immutable(run)
		for key := range args {
			if fixed[key] || reserved(key) {
				return nil, refuse(whisk.Invalid, textReserved)
			}
		}
		if err := addBody(args, r, body); err != nil {
			return nil, err
		}
	}
	// Last, over whatever came with the request.
	args[owMethod] = strings.ToLower(r.Method)
	// All of them, credentials too.
	args[owHeaders] = headersOf(r, func(string) bool { return false })
	args[owPath] = at.rest
	if user != "" {
		args[owUser] = user
	}
	return encode(args)
}

// mediaType returns the type of a request's body: octets when it is not told.
func mediaType(r *http.Request) string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return "application/octet-stream"
	}
	return t
}

// isJSON and isForm tell the bodies whose members become arguments.
func isJSON(t string) bool { return t == typeJSON || strings.HasSuffix(t, "+json") }

func isForm(t string) bool { return t == "application/x-www-form-urlencoded" }

// isText reports whether a media type, which is not JSON, is of text.
func isText(t string) bool {
	switch t {
	case "application/javascript", "application/xml", "application/xhtml+xml", "application/graphql", "application/yaml":
		return true
	}
	return isForm(t) || strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+xml")
}

// rawBody is the body as a raw web action gets it: base64, but for text.
func rawBody(r *http.Request, body []byte) string {
	if len(body) == 0 {
		return ""
	}
	if t := mediaType(r); isText(t) {
		return string(body)
	}
	return base64.StdEncoding.EncodeToString(body)
}

// mergeRequest lays the members of a form or JSON object over the query's
// parameters. Of several values of one key the last counts.
func mergeRequest(args map[string]any, r *http.Request, body []byte) error {
	last := func(vs url.Values) {
		for key, v := range vs {
			args[key] = v[len(v)-1]
		}
	}
	if r.URL.RawQuery != "" {
		last(r.URL.Query())
	}
	t := mediaType(r)
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
	case isForm(t):
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return malformed(err.Error())
		}
		last(form)
	case isJSON(t):
		if err := checkJSON(body); err != nil {
			return err
		}
		// It has no members: addBody gives it as a whole.
		if body[0] != '{' {
			return nil
		}
		var given members
		if err := json.Unmarshal(body, &given); err != nil {
			return malformed(decodeText(err))
		}
		for key, v := range given {
			args[key] = v
		}
	}
	return nil
}

// addBody gives what mergeRequest had no use for as a whole.
func addBody(args map[string]any, r *http.Request, body []byte) error {
	t := mediaType(r)
	trimmed := bytes.TrimSpace(body)
	switch {
	case len(body) == 0, isForm(t), isJSON(t) && (len(trimmed) == 0 || trimmed[0] == '{'):
	case isJSON(t):
		args[owBody] = json.RawMessage(trimmed)
	case isText(t):
		args[owBody] = string(body)
	default:
		args[owBody] = base64.StdEncoding.EncodeToString(body)
	}
	return nil
}
