package acl

import (
	"testing"

	"github.com/hashicorp/consul/api"
)

// Tests run in the order of their files and lines: this one has to be the first.
func TestBootstrap(t *testing.T) {
	anybody := connect(t, "")
	_, _, err := anybody.ACL().TokenList(nil)
	refused(t, err, "403 (Permission denied: anonymous token lacks permission 'acl:read'."+anonymity)
	_, _, err = connect(t, unknownID).ACL().TokenList(nil)
	refused(t, err, "403 (ACL system must be bootstrapped before making any requests that require authorization: ACL not found)")
	_, _, err = anybody.ACL().BootstrapWithToken("no-uuid")
	refused(t, err, "400 (")

	first := must1(bootstrapped())(t)
	if first.Description != "Bootstrap Token (Global Management)" || first.Local || first.SecretID == first.AccessorID {
		t.Fatalf("%+v", first)
	}
	same(t, first.Policies, []*api.ACLLink{{ID: management, Name: "global-management"}})
	for _, again := range []func() (*api.ACLToken, *api.WriteMeta, error){
		anybody.ACL().Bootstrap,
		func() (*api.ACLToken, *api.WriteMeta, error) { return anybody.ACL().BootstrapWithToken(unknownID) },
	} {
		_, _, err = again()
		refused(t, err, "403 (Permission denied: ACL bootstrap no longer allowed (reset index: ")
	}
	_, _, err = connect(t, unknownID).ACL().TokenList(nil)
	if err == nil || err.Error() != notFound {
		t.Fatal(err)
	}
}
