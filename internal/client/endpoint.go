package client

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// Where a client looks, unless told.
const (
	defaultHost    = "http://localhost:3233"
	DefaultVersion = "v1"
	homeProps      = ".wskprops"
	dataProps      = "wskprops"
	envConfig      = "WSK_CONFIG_FILE"
	envData        = "MILLRACE_DATA"
)

// Endpoint is a server and the key to call it with.
type Endpoint struct {
	Host, HostFrom string // as given: without a scheme it means https
	Auth, AuthFrom string // uuid:key; empty if none was found
	APIVersion     string
	Namespace      string // whisk.Own unless the properties file names one
	Cert, CertKey  string // files of a client certificate and its key
	Insecure       bool   // take any certificate of the server
	File           string // properties file that 'property set' writes
}

// Settings are what the command line says; empty members are not said.
type Settings struct {
	Host, Auth, APIVersion, Cert, CertKey string
	Insecure                              bool
}

// URL returns the server's address without a slash at its end, or Invalid.
func (e Endpoint) URL() (string, error) {
	s := e.Host
	scheme, _, named := strings.Cut(s, "://")
	if !named {
		// As wsk does. A server that speaks no TLS has its scheme in the
		// properties file.
		s = "https://" + s
	}
	u, err := url.Parse(strings.TrimRight(s, "/"))
	if err != nil || named && scheme != "http" && scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", whisk.WithHint(
			whisk.E(whisk.Invalid, "", fmt.Errorf("the API host '%s' (from %s) is not valid", e.Host, e.HostFrom)),
			"give it as http://host:port with --apihost, or 'millrace property set --apihost'",
		)
	}
	return u.String(), nil
}

// Discover finds server and key. The command line comes first, then WHISK_AUTH
// and WHISK_APIHOST, then the first of these files that holds a key:
// WSK_CONFIG_FILE (which, when set, is the only one), .wskprops in home, and
// wskprops in the data folder. A key is sent to the host of its own file and
// no other, unless the host was given besides.
func Discover(s Settings, getenv func(string) string, home, data string) (Endpoint, error) {
	e := Endpoint{
		Host: s.Host, HostFrom: "--apihost", Auth: s.Auth, AuthFrom: "--auth",
		APIVersion: s.APIVersion, Namespace: whisk.Own,
		Cert: s.Cert, CertKey: s.CertKey, Insecure: s.Insecure,
	}
	if v := getenv("WHISK_AUTH"); e.Auth == "" && v != "" {
		e.Auth, e.AuthFrom = v, "WHISK_AUTH"
	}
	if v := getenv("WHISK_APIHOST"); e.Host == "" && v != "" {
		e.Host, e.HostFrom = v, "WHISK_APIHOST"
	}
	if v := getenv("WHISK_APIVERSION"); e.APIVersion == "" {
		e.APIVersion = v
	}
	files := Files(getenv, home, data)
	e.File = files[0]
	for _, f := range files {
		props, err := ReadProps(f)
		if err != nil {
			return Endpoint{}, whisk.WithHint(whisk.E(whisk.Invalid, "", fmt.Errorf("Unable to read the properties file '%s': %w", f, err)), "make it readable for this user, or name another with WSK_CONFIG_FILE")
		}
		// A file with a host and no key is no use to us, unless the key came
		// from elsewhere.
		if props["AUTH"] == "" && (e.Auth == "" || props["APIHOST"] == "") {
			continue
		}
		// One file only: what a second one says belongs to another key.
		e.take(f, props)
		break
	}
	if e.Host == "" {
		e.Host, e.HostFrom = defaultHost, "the default"
	}
	if e.APIVersion == "" {
		e.APIVersion = DefaultVersion
	}
	if e.Auth == "" {
		e.AuthFrom = "nowhere"
	}
	return e, nil
}

// take fills what is not said yet from one properties file.
func (e *Endpoint) take(file string, props map[string]string) {
	fill := func(to *string, key string) bool {
		if *to != "" || props[key] == "" {
			return false
		}
		*to = props[key]
		return true
	}
	if fill(&e.Auth, "AUTH") {
		e.AuthFrom = file
	}
	if fill(&e.Host, "APIHOST") {
		e.HostFrom = file
	}
	fill(&e.APIVersion, "APIVERSION")
	fill(&e.Cert, "CERT")
	fill(&e.CertKey, "KEY")
	if ns := props["NAMESPACE"]; ns != "" {
		e.Namespace = ns
	}
}

// Files returns the properties files that are looked into, in their order. The
// first is the one that 'property set' writes.
func Files(getenv func(string) string, home, data string) []string {
	if f := getenv(envConfig); f != "" {
		return []string{f}
	}
	if d := getenv(envData); d != "" {
		data = d
	}
	return []string{filepath.Join(home, homeProps), filepath.Join(data, dataProps)}
}

// ReadProps reads a properties file: lines of KEY=value, with comments after
// #. A file that does not exist holds nothing.
func ReadProps(file string) (map[string]string, error) {
	props := map[string]string{}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return props, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		key, value, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); ok && key != "" {
			props[key] = strings.TrimSpace(value)
		}
	}
	return props, lines.Err()
}

// WriteProps writes a properties file, whole or not at all, for its user only:
// it holds a key.
func WriteProps(file string, props map[string]string) error {
	// A link stays a link: the file behind it is replaced.
	if to, err := filepath.EvalSymlinks(file); err == nil {
		file = to
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	for _, k := range slices.Sorted(maps.Keys(props)) {
		if _, err = fmt.Fprintf(tmp, "%s=%s\n", k, props[k]); err != nil {
			break
		}
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
