// Package client speaks to a server as the command line does: OpenWhisk's REST
// API and our own /hub/v1.
//
// Discover finds the server and the key, New makes a Client of them, and there
// is a method for every call the command line makes. Answers are in the wire
// types of this package, whose members have the order in which wsk prints
// them. An answer that is not a success is a Failure: it has a whisk.Kind, a
// remedy and the exit code that wsk would end with. The package prints nothing.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

const (
	dialTimeout = 10 * time.Second
	// answerTimeout bounds the wait for an answer to begin. A blocking
	// invocation is answered within whisk.MaxWait.
	answerTimeout = whisk.MaxWait + 30*time.Second
	maxAnswer     = 256 << 20 // bytes; a list of full records is the largest
)

// Client makes calls to one server with one key. It is safe for concurrent use.
type Client struct {
	at    Endpoint
	base  string // scheme://host, no slash at the end
	http  *http.Client
	agent string
	trace func(req *http.Request, body []byte, resp *http.Response, answer []byte)
}

// Option changes a Client that is being made.
type Option func(*Client)

// WithAgent sets the User-Agent header.
func WithAgent(s string) Option { return func(c *Client) { c.agent = s } }

// WithTrace has fn told of every exchange when its answer has been read. The
// request holds no credentials by then. Streams are not told.
func WithTrace(fn func(req *http.Request, body []byte, resp *http.Response, answer []byte)) Option {
	return func(c *Client) { c.trace = fn }
}

// New returns a Client for the server and key of at. It returns Invalid for an
// unusable address or client certificate.
func New(at Endpoint, opts ...Option) (*Client, error) {
	base, err := at.URL()
	if err != nil {
		return nil, err
	}
	// Only the beginning of an answer is waited for with a bound: a stream
	// goes on for as long as the caller listens.
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		ResponseHeaderTimeout: answerTimeout,
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: at.Insecure}, //nolint:gosec // asked for with -i, as wsk has it
	}
	if at.Cert != "" || at.CertKey != "" {
		pair, err := tls.LoadX509KeyPair(at.Cert, at.CertKey)
		if err != nil {
			return nil, whisk.WithHint(whisk.E(whisk.Invalid, "", fmt.Errorf("client certificate: %w", err)), "check --cert and --key, or CERT and KEY of the properties file")
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	c := &Client{at: at, base: base, http: &http.Client{Transport: t}, agent: "millrace"}
	for _, o := range opts {
		o(c)
	}
	return c, nil
}

// Endpoint returns where and as whom c calls.
func (c *Client) Endpoint() Endpoint { return c.at }

// call is one request. Path is escaped already and begins with a slash. Public:
// it needs no key, and is sent none.
type call struct {
	method, path string
	query        url.Values
	body         any // nil: none
	public       bool
}

// do makes a call and decodes a successful answer into out, unless that is
// nil. A success that does not decode is let pass, as wsk's client does: some
// answers are the text OK. It returns the answer as it came.
func (c *Client) do(ctx context.Context, r call, out any) (json.RawMessage, int, error) {
	resp, body, err := c.send(ctx, r, "application/json")
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, resp.StatusCode, c.unreachable(err)
	}
	if c.trace != nil {
		c.trace(resp.Request, c.conceal(body), resp, c.conceal(answer))
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return answer, resp.StatusCode, c.failure(resp.StatusCode, answer)
	}
	if out != nil {
		// JSON of another shape is an error all the same: the server is not
		// one that we understand.
		if err := json.Unmarshal(answer, out); err != nil && json.Valid(answer) {
			return answer, resp.StatusCode, whisk.E(whisk.Internal, "read answer", fmt.Errorf("%s %s: %w", r.method, r.path, err))
		}
	}
	return answer, resp.StatusCode, nil
}

// conceal returns b with the key in it struck out: feeds are told it.
func (c *Client) conceal(b []byte) []byte {
	if c.at.Auth == "" {
		return b
	}
	return bytes.ReplaceAll(b, []byte(c.at.Auth), []byte("<key>"))
}

// send makes a request and returns its answer with an open body.
func (c *Client) send(ctx context.Context, r call, accept string) (*http.Response, []byte, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = encode(r.body); err != nil {
			return nil, nil, whisk.E(whisk.Invalid, "encode request", err)
		}
	}
	u := c.base + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, bytes.NewReader(body))
	if err != nil {
		return nil, nil, whisk.E(whisk.Invalid, "make request", err)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", c.agent)
	if !r.public {
		if c.at.Auth == "" {
			return nil, nil, c.noKey()
		}
		user, pass, _ := strings.Cut(c.at.Auth, ":")
		req.SetBasicAuth(user, pass)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, c.unreachable(err)
	}
	resp.Request.Header.Del("Authorization") // nobody after this needs it
	return resp, body, nil
}

// encode is json.Marshal without the escapes for HTML, which nobody here reads.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// unreachable is the failure of a call that got no answer.
func (c *Client) unreachable(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // the address is told below, once
	}
	var why *os.SyscallError
	if errors.As(err, &why) {
		err = why.Err // what happened, without the names of the calls
	}
	// The caller knows why, and no remedy is called for.
	if errors.Is(err, context.Canceled) {
		return err
	}
	hint := fmt.Sprintf("is a server running at %s? start one with 'millrace dev', or name another with --apihost", c.base)
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		hint = "the server does not speak https: write http:// before the host in " + c.at.HostFrom
	}
	return &whisk.Error{
		Kind: whisk.Unavailable, Hint: hint,
		Err: &Failure{Exit: exitNetwork, Message: fmt.Sprintf("no answer from %s (from %s): %v", c.base, c.at.HostFrom, err)},
	}
}

// noKey is the failure of a call that needs a key when none was found. Nothing
// is sent.
func (c *Client) noKey() error {
	return &whisk.Error{
		Kind: whisk.Unauthorized, Hint: "start a server with 'millrace dev', which leaves a key in its data folder, or give one with --auth or 'millrace property set --auth'",
		Err: &Failure{Exit: exitUsage, Message: "Authorization key is not configured (--auth is required)"},
	}
}

// rest returns the path of something in a namespace, each segment escaped.
// Empty segments at the end are kept: "actions/pkg/" lists a package.
func (c *Client) rest(namespace string, segments ...string) string {
	var b strings.Builder
	b.WriteString(c.root() + "/namespaces/" + url.PathEscape(namespace))
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// root returns the path that all of the REST API is under.
func (c *Client) root() string { return "/api/" + url.PathEscape(c.at.APIVersion) }

// in returns the path of the entity n in a collection.
func (c *Client) in(collection string, n whisk.Name) string {
	if n.Package != "" {
		return c.rest(n.Namespace, collection, n.Package, n.Entity)
	}
	return c.rest(n.Namespace, collection, n.Entity)
}
