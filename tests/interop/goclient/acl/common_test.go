// Package acl drives one node, on which nothing is allowed by default, with Consul's own Go client.
//
// QUORUMCA_ACL_NODE is the HTTP address of a node of which nobody has asked for a token yet.
package acl

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
)

const (
	hidden     = "<hidden>"
	anonymous  = "00000000-0000-0000-0000-000000000002"
	management = "00000000-0000-0000-0000-000000000001"
	unknownID  = "5ca1ab1e-0000-4000-8000-00000000dead"
)

// Texts of Consul's which tools compare.
const (
	notFound  = "Unexpected response code: 403 (ACL not found)"
	anonymity = " The anonymous token is used implicitly when a request does not specify a token.)"
)

func connect(t *testing.T, token string) *api.Client {
	t.Helper()
	address := os.Getenv("QUORUMCA_ACL_NODE")
	if address == "" {
		t.Skip("QUORUMCA_ACL_NODE is not set")
	}
	client, err := api.NewClient(&api.Config{Address: address, Scheme: "http", Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

var bootstrapped = sync.OnceValues(func() (*api.ACLToken, error) {
	client, err := api.NewClient(&api.Config{Address: os.Getenv("QUORUMCA_ACL_NODE"), Scheme: "http"})
	if err != nil {
		return nil, err
	}
	token, _, err := client.ACL().Bootstrap()
	return token, err
})

// manager is a client that may do everything.
func manager(t *testing.T) *api.Client {
	t.Helper()
	connect(t, "") // ends a test that has no node to ask
	return connect(t, must1(bootstrapped())(t).SecretID)
}

// must and must1 end the test with an error; else they give the first of three values, or of two.
func must[T any, M any](value T, _ M, err error) func(t *testing.T) T {
	return must1(value, err)
}

func must1[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func refused(t *testing.T, err error, said string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), said) {
		t.Fatalf("got %v, wanted an error with %q", err, said)
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

func names(links []*api.ACLLink) []string {
	var found []string
	for _, link := range links {
		found = append(found, link.Name)
	}
	slices.Sort(found)
	return found
}

var counter int

// unique is a name that no other test has taken.
func unique(kind string) string {
	counter++
	return fmt.Sprintf("%s-%d", kind, counter)
}

func newPolicy(t *testing.T, rules string) *api.ACLPolicy {
	t.Helper()
	return must(manager(t).ACL().PolicyCreate(&api.ACLPolicy{Name: unique("policy"), Rules: rules}, nil))(t)
}

// with is a client whose token has these rules, and the token.
func with(t *testing.T, rules string) (*api.Client, *api.ACLToken) {
	t.Helper()
	policy := newPolicy(t, rules)
	token := must(manager(t).ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil))(t)
	return connect(t, token.SecretID), token
}

func lacks(token *api.ACLToken, right string) string {
	return fmt.Sprintf("403 (Permission denied: token with AccessorID '%s' lacks permission '%s'", token.AccessorID, right)
}
