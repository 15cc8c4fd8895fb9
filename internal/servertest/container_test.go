package servertest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"gopkg.in/yaml.v3"
)

// composed is what docker-compose.yml says of the server.
type composed struct {
	Environment map[string]string `yaml:"environment"`
	Volumes     []string          `yaml:"volumes"`
	Command     []string          `yaml:"command"`
}

// readCompose returns the server of docker-compose.yml for a home folder.
func readCompose(t *testing.T, home string) composed {
	t.Helper()
	b, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	b = regexp.MustCompile(`\$\{MILLRACE_HOME:-[^}]*\}`).ReplaceAllLiteral(b, []byte(home))
	var file struct {
		Services map[string]composed `yaml:"services"`
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Services["millrace"]
}

// lastStage returns what .ci/Dockerfile says of the image that it makes, on top
// of an image that is here and with a program that was built before.
func lastStage(t *testing.T, base string) string {
	t.Helper()
	b, err := os.ReadFile("../../.ci/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	_, rest, _ := strings.Cut(text[strings.LastIndex(text, "\nFROM ")+1:], "\n")
	return "FROM " + base + "\n" + strings.Replace(rest, "--from=build /src/bin/millrace", "millrace", 1)
}

// httpRuntime serves /init and /run, as OpenWhisk's runtime images do.
const httpRuntime = `
import http.server, json, sys

class H(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps({"got": body["value"]} if self.path == "/run" else {"ok": True}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
`

// dock is a daemon and what a test makes with it.
type dock struct {
	*testing.T
	*client.Client
}

func (d dock) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// build makes an image from files, one of which is called Dockerfile.
func (d dock) build(tag string, files map[string][]byte) {
	d.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		d.must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err := w.Write(content)
		d.must(err)
	}
	d.must(w.Close())
	resp, err := d.ImageBuild(d.Context(), &b, build.ImageBuildOptions{Tags: []string{tag}, Remove: true, ForceRemove: true})
	d.must(err)
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || bytes.Contains(said, []byte(`"errorDetail"`)) {
		d.Fatalf("build %s: %v\n%s", tag, err, said)
	}
	d.Cleanup(func() {
		_, _ = d.ImageRemove(context.Background(), tag, image.RemoveOptions{Force: true}) // it may stay for the next run
	})
}

// run starts a container that is removed with the test.
func (d dock) run(c *container.Config, h *container.HostConfig) (id string) {
	d.Helper()
	ctx := context.WithoutCancel(d.Context()) // also for the end of a test
	made, err := d.ContainerCreate(ctx, c, h, nil, nil, "")
	d.must(err)
	d.Cleanup(func() {
		if err := d.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			d.Error(err)
		}
	})
	d.must(d.ContainerStart(ctx, made.ID, container.StartOptions{}))
	return made.ID
}

// exec returns what a command prints in a container.
func (d dock) exec(id string, command ...string) string {
	d.Helper()
	made, err := d.ContainerExecCreate(d.Context(), id, container.ExecOptions{Cmd: command, AttachStdout: true, AttachStderr: true})
	d.must(err)
	a, err := d.ContainerExecAttach(d.Context(), made.ID, container.ExecAttachOptions{})
	d.must(err)
	defer a.Close()
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, a.Reader)
	d.must(err)
	return out.String()
}

// output returns what a container has printed.
func (d dock) output(id string) string {
	r, err := d.ContainerLogs(context.Background(), id, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	var out bytes.Buffer
	_, _ = stdcopy.StdCopy(&out, &out, r) // what there is
	return out.String()
}

// ours counts the containers that a server with this data folder has made.
func (d dock) ours(data string) int {
	list, err := d.ContainerList(context.Background(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", "millrace.home="+filepath.Join(data, "work"))),
	})
	d.must(err)
	return len(list)
}

// TestServerInContainer runs the server as docker-compose.yml does: in an
// image, on a network of its own, with the machine's daemon and a folder that
// has one path inside and outside. It runs actions of every kind.
func TestServerInContainer(t *testing.T) {
	if os.Getenv("TEST_DOCKER") == "" {
		t.Skip("needs Docker and the images of .ci/docker: run 'make test'")
	}
	bin, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	d := dock{t, api}
	data := t.TempDir()
	service := readCompose(t, data)
	const server, blackbox = "millrace-test/server:1", "millrace-test/http:1"
	d.build(server, map[string][]byte{"Dockerfile": []byte(lastStage(t, "millrace-test/debian:stable")), "millrace": program})
	d.build(blackbox, map[string][]byte{
		"Dockerfile": []byte("FROM millrace-test/python:3\nCOPY server.py /server.py\nCMD [\"python3\", \"/server.py\"]\n"),
		"server.py":  []byte(httpRuntime),
	})
	runtimes := filepath.Join(data, "runtimes.json")
	d.must(os.WriteFile(runtimes, []byte(`{"runtimes": {
		"python": [{"kind": "python:3", "image": {"prefix": "millrace-test", "name": "python", "tag": "3"}, "launcher": "python"}],
		"nodejs": [{"kind": "nodejs:20", "image": {"prefix": "millrace-test", "name": "node", "tag": "20"}, "launcher": "node"}],
		"native": [{"kind": "native:1", "image": {"prefix": "millrace-test", "name": "debian", "tag": "stable"}, "launcher": "native"}]
	}}`), 0o644)) //nolint:gosec // another user may read it

	own, err := d.NetworkCreate(d.Context(), "millrace-test-"+fmt.Sprint(os.Getpid()), network.CreateOptions{Driver: "bridge"})
	d.must(err)
	t.Cleanup(func() { d.must(d.NetworkRemove(context.Background(), own.ID)) })
	t.Cleanup(func() { // what root has made there, only root can remove
		id := d.run(&container.Config{Image: "millrace-test/debian:stable", Cmd: []string{"sh", "-c", "rm -rf /data/* /data/.[!.]*"}},
			&container.HostConfig{Binds: []string{data + ":/data"}})
		ended, failed := d.ContainerWait(context.Background(), id, container.WaitConditionNotRunning)
		select {
		case <-ended:
		case err := <-failed:
			t.Error(err)
		}
	})
	env := []string{"MILLRACE_RUNTIMES=" + runtimes, "MILLRACE_STEM_CELLS=0"}
	for k, v := range service.Environment {
		env = append(env, k+"="+v)
	}
	id := d.run(&container.Config{Image: server, Env: env, Cmd: service.Command},
		&container.HostConfig{Binds: service.Volumes, NetworkMode: container.NetworkMode(own.ID), PublishAllPorts: true})
	in, err := d.ContainerInspect(d.Context(), id)
	d.must(err)
	port := ""
	for _, bound := range in.NetworkSettings.Ports { // the image has one
		for _, b := range bound {
			if !strings.Contains(b.HostIP, ":") { // those of IPv6 have numbers of their own
				port = b.HostPort
			}
		}
	}
	if port == "" {
		t.Fatalf("the server has ended:\n%s", d.output(id))
	}
	c := &Client{URL: "http://127.0.0.1:" + port, HTTP: &http.Client{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server said:\n%s", d.output(id))
		}
	})
	Eventually(t, time.Minute, "the server is ready", func() bool {
		a, err := c.Do(t.Context(), "GET", "/ready", nil)
		if err == nil && a.Status == http.StatusOK {
			return true
		}
		if in, err := d.ContainerInspect(d.Context(), id); err != nil || !in.State.Running {
			t.Fatalf("the server has ended: %v\n%s", err, d.output(id))
		}
		return false
	})
	said := strings.Fields(d.exec(id, "/usr/local/bin/millrace", "property", "get", "--auth"))
	if len(said) == 0 {
		t.Fatal("property get --auth says nothing")
	}
	c.Auth = said[len(said)-1]

	exec := map[string]map[string]any{
		"python": {"kind": "python:3", "code": "def main(args):\n    return {'got': args}\n"},
		"node":   {"kind": "nodejs:20", "code": "function main(args) { return { got: args } }"},
		"native": {"kind": "native:1", "code": "echo \"{\\\"got\\\":$1}\"\n"},
		"image":  {"kind": "blackbox", "image": blackbox},
	}
	for name, e := range exec {
		path := "/api/v1/namespaces/_/actions/" + name
		c.Must(t, http.StatusOK, "PUT", path, map[string]any{"exec": e}, nil)
		a, err := c.Do(t.Context(), "POST", path+"?blocking=true&result=true", map[string]any{"a": 1})
		if err != nil || a.Status != http.StatusOK || strings.ReplaceAll(string(a.Body), " ", "") != `{"got":{"a":1}}` {
			t.Errorf("%s = %d %s, %v; the server said:\n%s", name, a.Status, a.Body, err, d.output(id))
		}
	}
	if n := d.ours(data); n != len(exec) {
		t.Errorf("%d containers of actions, want %d", n, len(exec))
	}
	patience := 60
	d.must(d.ContainerStop(d.Context(), id, container.StopOptions{Timeout: &patience}))
	if in, err = d.ContainerInspect(d.Context(), id); err != nil || in.State.ExitCode != 0 {
		t.Errorf("the server ended with %d, %v:\n%s", in.State.ExitCode, err, d.output(id))
	}
	if n := d.ours(data); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}
