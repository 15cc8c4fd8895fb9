// Package config holds the server's settings: their defaults, where they are
// read from and what values are good.
//
// A setting has one name everywhere: --public-url on the command line,
// MILLRACE_PUBLIC_URL in the environment, public-url in the YAML file. Load
// lays them over the defaults in that order of precedence; whatever it does
// not know or can't read is an error, and all errors come at once. The package
// does not know what the settings do.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// Port is where the server listens, and clients look for it, unless told.
const Port = "3233"

// Driver says what actions run in.
type Driver string

// The drivers. Auto takes Docker when it answers and the images of the default
// kinds are there, else Process.
const (
	Auto    Driver = "auto"
	Docker  Driver = "docker"
	Process Driver = "process"
)

// Durability says what an accepted event survives.
type Durability string

// Disk: power loss. ProcessOnly: the death of the process, not of the machine.
const (
	Disk        Durability = "disk"
	ProcessOnly Durability = "process"
)

// Config is everything that can be set. Make one with Dev or Serve. The zero
// value is not valid.
type Config struct {
	Listen           string     // host:port of the API; no host means all interfaces, port 0 any free one
	Data             string     // folder of everything the server keeps, absolute
	PublicURL        string     // how the outside reaches the server; empty: the listener's address
	Driver           Driver     // what actions run in
	Memory           int64      // bytes, for all containers together
	StemCells        int        // containers of each default kind kept started without code; 0 to MaxStemCells
	Runtimes         string     // runtimes.json; empty: the built-in kinds
	Durability       Durability // what an accepted event survives
	GuestKey         string     // uuid:key that namespace guest gets; empty: made at the first start
	AllowUnsandboxed bool       // listen beyond this machine although actions run unsandboxed
	LogFormat        string     // text or json
	LogLevel         string     // debug, info, warn or error
}

// Bounds of the settings that have some.
const (
	MinMemory    = 128 << 20 // one container of the smallest size, in bytes
	MaxStemCells = 16
)

// Dev returns the settings of millrace dev: for one person on a laptop.
func Dev() Config {
	return Config{
		Listen: "127.0.0.1:" + Port, Data: DefaultData(), Driver: Auto,
		Memory: max(machineMemory()/2, MinMemory), StemCells: 1,
		Durability: Disk, LogFormat: "text", LogLevel: "warn",
	}
}

// Serve returns the settings of millrace serve: for production.
func Serve() Config {
	c := Dev()
	c.Driver, c.LogFormat, c.LogLevel = Docker, "json", "info"
	return c
}

// DefaultData returns the data folder that is used unless told: .millrace in
// the home folder, or in the working folder of a user without a home.
func DefaultData() string {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	dir, err := filepath.Abs(filepath.Join(home, ".millrace"))
	if err != nil {
		return filepath.Join(home, ".millrace")
	}
	return dir
}

// guestKey is the form of OpenWhisk's keys: clients send what is before the
// colon as the user and what is behind it as the password.
var guestKey = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}:[0-9A-Za-z]{64}$`)

// Validate returns nil when the server could start with c, else Invalid with
// every bad setting. It looks at values only, not at the machine. A port may be
// a name, as in localhost:http.
func (c Config) Validate() error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen", "%q is not host:port, as in 127.0.0.1:%s", c.Listen, Port)
	} else if _, err := net.LookupPort("tcp", port); err != nil {
		bad("listen", "%q is not a port", port)
	}
	if c.Data == "" {
		bad("data", "a folder is needed")
	}
	if c.PublicURL != "" && !isOrigin(c.PublicURL) {
		bad("public-url", "%q is not http:// or https:// with a host and no more than a path", c.PublicURL)
	}
	switch c.Driver {
	case Auto, Docker, Process:
	default:
		bad("driver", "%q is none of auto, docker, process", c.Driver)
	}
	if c.Memory < MinMemory {
		bad("memory", "%s is less than one container (%s)", Size(c.Memory), Size(MinMemory))
	}
	if c.StemCells < 0 || c.StemCells > MaxStemCells {
		bad("stem-cells", "%d is not in the range of 0 to %d", c.StemCells, MaxStemCells)
	}
	if c.Durability != Disk && c.Durability != ProcessOnly {
		bad("durability", "%q is neither disk nor process", c.Durability)
	}
	if c.GuestKey != "" && !guestKey.MatchString(c.GuestKey) {
		bad("guest-key", "not a key: a UUID, a colon and 64 letters or digits are needed") // never shown
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		bad("log-format", "%q is neither text nor json", c.LogFormat)
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		bad("log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	}
	if len(errs) > 0 {
		return whisk.E(whisk.Invalid, "", errors.Join(errs...))
	}
	return nil
}

// isOrigin reports whether s may stand before the path of an address: a query
// or a user in it would end up in the middle.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" &&
		u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// Loopback reports whether c listens where only this machine can connect. A
// name other than localhost counts as reachable: what it resolves to may change.
func (c Config) Loopback() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Exposed returns nil when actions that run with the given sandboxing may be
// offered at c's address, else Forbidden with the remedy: code of others must
// not get this user's rights from beyond this machine unless that was asked for.
func (c Config) Exposed(sandboxed bool) error {
	if sandboxed || c.AllowUnsandboxed || c.Loopback() {
		return nil
	}
	return whisk.WithHint(
		whisk.E(whisk.Forbidden, "", fmt.Errorf("actions would run unsandboxed, and %s can be reached from other machines", c.Listen)),
		"use --driver docker, listen on 127.0.0.1, or accept it with --allow-unsandboxed",
	)
}
