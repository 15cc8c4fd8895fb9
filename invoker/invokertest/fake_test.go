package invokertest_test

import (
	"testing"

	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

func TestFake(t *testing.T) {
	invokertest.Suite{
		New:      func(*testing.T) invoker.Driver { return invokertest.NewFake(invokertest.FakeActions()) },
		Runtimes: invokertest.FakeRuntimes(0),
	}.Run(t)
}
