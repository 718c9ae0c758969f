package acl

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	bound = 10 * time.Second
	// A right ends within a second; a machine that has much else to do may tell of it later.
	soon = 3 * time.Second
)

func request(t *testing.T, uri string) string {
	t.Helper()
	key := must1(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.CertificateRequest{URIs: []*url.URL{must1(url.Parse(uri))(t)}}
	der := must1(x509.CreateCertificateRequest(rand.Reader, template, key))(t)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// sign has no method in the client: servers of Consul ask each other.
func sign(t *testing.T, client *api.Client, uri string) (string, error) {
	t.Helper()
	var made struct{ CertPEM string }
	_, err := client.Raw().Write("/v1/connect/ca/sign", map[string]string{"CSR": request(t, uri)}, &made, nil)
	return made.CertPEM, err
}

func roots(t *testing.T, client *api.Client) *api.CARootList {
	t.Helper()
	found := must(client.Connect().CARoots(nil))(t)
	if len(found.Roots) == 0 || found.TrustDomain == "" {
		t.Fatalf("%+v", found)
	}
	return found
}

func TestRootsAreForEverybody(t *testing.T) {
	manager(t)
	for _, token := range []string{"", unknownID} {
		client := connect(t, token)
		roots(t, client)
		must(client.Agent().ConnectCARoots(nil))(t)
		if leader := must1(client.Status().Leader())(t); leader == "" {
			t.Fatal("no leader")
		}
	}
}

func TestServiceHasItsOwnCertificatesAndNoOthers(t *testing.T) {
	client, token := with(t, `service "web" { policy = "write" } service "api" { policy = "read" }`)
	domain := "spiffe://" + roots(t, client).TrustDomain
	web, other := domain+"/ns/default/dc/dc1/svc/web", domain+"/ns/default/dc/dc1/svc/api"
	if cert, err := sign(t, client, web); err != nil || !strings.HasPrefix(cert, "-----BEGIN CERTIFICATE-----") {
		t.Fatalf("%v, %s", err, cert)
	}
	_, err := sign(t, client, other)
	refused(t, err, lacks(token, "service:write")+` on "api"`)
	_, err = sign(t, client, domain+"/agent/client/dc/dc1/id/node-9")
	refused(t, err, lacks(token, "node:write")+` on "node-9"`)
	_, err = sign(t, client, domain+"/gateway/mesh/dc/dc1")
	refused(t, err, lacks(token, "mesh:write"))

	leaf := must(client.Agent().ConnectCALeaf("web", nil))(t)
	if !strings.HasSuffix(leaf.ServiceURI, "/svc/web") {
		t.Fatalf("%+v", leaf)
	}
	_, _, err = client.Agent().ConnectCALeaf("api", nil)
	refused(t, err, lacks(token, "service:write")+` on "api"`)
	// What is in the cache for one is not there for another.
	reader, readers := with(t, `service "web" { policy = "read" }`)
	_, _, err = reader.Agent().ConnectCALeaf("web", nil)
	refused(t, err, lacks(readers, "service:write")+` on "web"`)
	_, _, err = connect(t, "").Agent().ConnectCALeaf("web", nil)
	refused(t, err, `anonymous token lacks permission 'service:write' on "web".`+anonymity)
	_, _, err = connect(t, unknownID).Agent().ConnectCALeaf("web", nil)
	refused(t, err, notFound)

	decision, err := client.Agent().ConnectAuthorize(&api.AgentAuthorizeParams{Target: "web", ClientCertURI: other})
	if err != nil || decision.Authorized {
		t.Fatalf("%v, %+v", err, decision)
	}
	_, err = client.Agent().ConnectAuthorize(&api.AgentAuthorizeParams{Target: "api", ClientCertURI: web})
	refused(t, err, lacks(token, "service:write")+` on "api"`)
}

// A list of the record is shortened, and says so.
func TestRecordShowsOwnCertificates(t *testing.T) {
	for _, service := range []string{"mine", "others"} {
		must(manager(t).Agent().ConnectCALeaf(service, nil))(t)
	}
	var found struct{ Certs []struct{ Service string } }
	_, token := with(t, `service "mine" { policy = "write" }`)
	asked := must1(http.NewRequest(http.MethodGet, "http://"+os.Getenv("QUORUMCA_ACL_NODE")+"/v1/connect/ca/certs", nil))(t)
	asked.Header.Set("X-Consul-Token", token.SecretID)
	answer := must1(http.DefaultClient.Do(asked))(t)
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil || len(found.Certs) == 0 {
		t.Fatalf("%v, %+v", err, found)
	}
	if answer.Header.Get("X-Consul-Results-Filtered-By-ACLs") != "true" {
		t.Fatalf("%v", answer.Header)
	}
	for _, cert := range found.Certs {
		if cert.Service != "mine" {
			t.Fatalf("%+v", found)
		}
	}
}

func TestOperatorsRights(t *testing.T) {
	reader, readers := with(t, `operator = "read"`)
	writer, _ := with(t, `operator = "write"`)
	nobody, _ := with(t, `service_prefix "" { policy = "write" }`)

	for _, client := range []*api.Client{writer, manager(t)} {
		config := must(client.Connect().CAGetConfig(nil))(t)
		must1(client.Connect().CASetConfig(config, nil))(t)
	}
	_, _, err := reader.Connect().CAGetConfig(nil)
	refused(t, err, lacks(readers, "operator:write"))
	_, err = reader.Connect().CASetConfig(&api.CAConfig{Provider: "consul"}, nil)
	refused(t, err, lacks(readers, "operator:write"))
	if servers := must1(reader.Operator().RaftGetConfiguration(nil))(t).Servers; len(servers) != 1 {
		t.Fatalf("%+v", servers)
	}
	must1(reader.Operator().AutopilotServerHealth(nil))(t)
	for _, client := range []*api.Client{nobody, connect(t, "")} {
		_, err = client.Operator().RaftGetConfiguration(nil)
		refused(t, err, "lacks permission 'operator:read'")
		_, _, err = client.ACL().PolicyList(nil)
		refused(t, err, "lacks permission 'acl:read'")
		_, _, err = client.ACL().PolicyCreate(&api.ACLPolicy{Name: "x"}, nil)
		refused(t, err, "lacks permission 'acl:write'")
	}

	// Whoever reads access control sees it all, and changes nothing.
	aclReader, aclReaders := with(t, `acl = "read"`)
	must(aclReader.ACL().TokenList(nil))(t)
	_, err = aclReader.ACL().TokenDelete(readers.AccessorID, nil)
	refused(t, err, lacks(aclReaders, "acl:write"))
	_, _, err = aclReader.Snapshot().Save(nil)
	refused(t, err, lacks(aclReaders, "acl:write"))
	snapshot, _, err := manager(t).Snapshot().Save(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	if data := must1(io.ReadAll(snapshot))(t); !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		t.Fatal("a snapshot is no gzip")
	}
}

func TestMembersAndSelf(t *testing.T) {
	all := must1(manager(t).Agent().Members(false))(t)
	if len(all) != 1 || all[0].Status != 1 || all[0].Port == 0 || all[0].Tags["dc"] != "dc1" {
		t.Fatalf("%+v", all)
	}
	name := all[0].Name
	client, _ := with(t, `agent "`+name+`" { policy = "read" } node "`+name+`" { policy = "read" }`)
	if own := must1(client.Agent().NodeName())(t); own != name {
		t.Fatal(own)
	}
	if seen := must1(client.Agent().Members(true))(t); len(seen) != 1 {
		t.Fatalf("%+v", seen)
	}
	must1(client.Agent().Metrics())(t)
	for _, other := range []*api.Client{connect(t, ""), must2(with(t, `agent "x" { policy = "write" }`))} {
		if seen := must1(other.Agent().Members(false))(t); len(seen) != 0 {
			t.Fatalf("%+v", seen)
		}
		_, err := other.Agent().Self()
		refused(t, err, `lacks permission 'agent:read' on "`+name+`"`)
	}
}

func must2(client *api.Client, _ *api.ACLToken) *api.Client { return client }

func TestAgentTokens(t *testing.T) {
	agent := manager(t).Agent()
	for what, update := range map[string]func(string, *api.WriteOptions) (*api.WriteMeta, error){
		"default":               agent.UpdateDefaultACLToken,
		"agent":                 agent.UpdateAgentACLToken,
		"recovery":              agent.UpdateAgentRecoveryACLToken,
		"recovery, by old name": agent.UpdateAgentMasterACLToken,
		"replication":           agent.UpdateReplicationACLToken,
		"registration":          agent.UpdateConfigFileRegistrationToken,
		"dns":                   agent.UpdateDNSToken,
	} {
		if _, err := update(unknownID, nil); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		must1(update("", nil))(t)
		if _, err := update(unknownID, &api.WriteOptions{Token: "5ca1ab1e-0000-4000-8000-00000000beef"}); err == nil {
			t.Fatalf("%s was given by nobody", what)
		}
	}
	_, err := manager(t).Raw().Write("/v1/agent/token/nosuch", map[string]string{"Token": ""}, nil, nil)
	refused(t, err, `404 (Token "nosuch" is unknown)`)
	reader, readers := with(t, `agent_prefix "" { policy = "read" }`)
	_, err = reader.Agent().UpdateAgentACLToken(unknownID, nil)
	refused(t, err, lacks(readers, "agent:write"))

	// The recovery token is good on this node, for what concerns it, and for nothing else.
	secret := "5ca1ab1e-0000-4000-8000-00000000cafe"
	must1(agent.UpdateAgentRecoveryACLToken(secret, nil))(t)
	recovery := connect(t, secret)
	must1(recovery.Agent().Self())(t)
	if seen := must1(recovery.Agent().Members(false))(t); len(seen) != 1 {
		t.Fatalf("%+v", seen)
	}
	must1(recovery.Agent().UpdateAgentACLToken("", nil))(t)
	_, _, err = recovery.ACL().TokenList(nil)
	refused(t, err, "lacks permission 'acl:read'")
	must1(recovery.Agent().UpdateAgentRecoveryACLToken("", nil))(t)
	_, err = recovery.Agent().Self()
	refused(t, err, notFound)
}

// wait asks for news since `index`, in the background.
func wait(index uint64, ask func(*api.QueryOptions) (*api.QueryMeta, error)) chan error {
	ended := make(chan error, 1)
	go func() {
		meta, err := ask(&api.QueryOptions{WaitIndex: index, WaitTime: 2 * bound})
		if err == nil && meta.LastIndex <= index {
			err = io.ErrNoProgress
		}
		ended <- err
	}()
	return ended
}

func ended(t *testing.T, what string, query chan error) error {
	t.Helper()
	select {
	case err := <-query:
		return err
	case <-time.After(bound):
		t.Fatalf("%s still waits", what)
		return nil
	}
}

func TestListsWakeWhenTheyChange(t *testing.T) {
	acl := manager(t).ACL()
	signer := newKey(t, "ES256")
	config := map[string]any{"JWTValidationPubKeys": []string{signer.pem(t)}}
	method := must(acl.AuthMethodCreate(&api.ACLAuthMethod{Name: unique("method"), Type: "jwt", Config: config}, nil))(t)
	for what, test := range map[string]struct {
		ask    func(*api.QueryOptions) (*api.QueryMeta, error)
		change func() error
	}{
		"tokens": {
			func(q *api.QueryOptions) (*api.QueryMeta, error) { _, meta, err := acl.TokenList(q); return meta, err },
			func() error { _, _, err := acl.TokenCreate(&api.ACLToken{}, nil); return err },
		},
		"policies": {
			func(q *api.QueryOptions) (*api.QueryMeta, error) { _, meta, err := acl.PolicyList(q); return meta, err },
			func() error { _, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: unique("policy")}, nil); return err },
		},
		"roles": {
			func(q *api.QueryOptions) (*api.QueryMeta, error) { _, meta, err := acl.RoleList(q); return meta, err },
			func() error { _, _, err := acl.RoleCreate(&api.ACLRole{Name: unique("role")}, nil); return err },
		},
		"auth methods": {
			func(q *api.QueryOptions) (*api.QueryMeta, error) {
				_, meta, err := acl.AuthMethodList(q)
				return meta, err
			},
			func() error {
				_, _, err := acl.AuthMethodCreate(&api.ACLAuthMethod{Name: unique("method"), Type: "jwt", Config: config}, nil)
				return err
			},
		},
		"binding rules": {
			func(q *api.QueryOptions) (*api.QueryMeta, error) {
				_, meta, err := acl.BindingRuleList("", q)
				return meta, err
			},
			func() error {
				_, _, err := acl.BindingRuleCreate(&api.ACLBindingRule{AuthMethod: method.Name, BindType: "service", BindName: "x"}, nil)
				return err
			},
		},
	} {
		t.Run(what, func(t *testing.T) {
			meta := must1(test.ask(nil))(t)
			query := wait(meta.LastIndex, test.ask)
			select {
			case err := <-query:
				t.Fatalf("it did not wait: %v", err)
			case <-time.After(300 * time.Millisecond):
			}
			if err := test.change(); err != nil {
				t.Fatal(err)
			}
			if err := ended(t, what, query); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A query that waits ends with the token that it was asked with, and with its rights.
func TestWhoWaitsIsJudgedAgain(t *testing.T) {
	acl := manager(t).ACL()
	for what, end := range map[string]func(*api.ACLToken) error{
		"deleted": func(token *api.ACLToken) error { _, err := acl.TokenDelete(token.AccessorID, nil); return err },
		"stripped": func(token *api.ACLToken) error {
			_, _, err := acl.TokenUpdate(&api.ACLToken{AccessorID: token.AccessorID}, nil)
			return err
		},
		"without its policy": func(token *api.ACLToken) error { _, err := acl.PolicyDelete(token.Policies[0].ID, nil); return err },
	} {
		t.Run(what, func(t *testing.T) {
			client, token := with(t, `operator = "write" service "web" { policy = "write" }`)
			_, meta, err := client.Connect().CAGetConfig(nil)
			if err != nil {
				t.Fatal(err)
			}
			configuration := wait(meta.LastIndex, func(q *api.QueryOptions) (*api.QueryMeta, error) {
				_, meta, err := client.Connect().CAGetConfig(q)
				return meta, err
			})
			leaf := must(client.Agent().ConnectCALeaf("web", nil))(t)
			leaves := wait(leaf.ModifyIndex, func(q *api.QueryOptions) (*api.QueryMeta, error) {
				_, meta, err := client.Agent().ConnectCALeaf("web", q)
				return meta, err
			})
			// Roots are nobody's secret.
			_, meta, err = client.Connect().CARoots(nil)
			if err != nil {
				t.Fatal(err)
			}
			trusted := wait(meta.LastIndex, func(q *api.QueryOptions) (*api.QueryMeta, error) {
				q.WaitTime = 2 * time.Second
				_, meta, err := client.Connect().CARoots(q)
				return meta, err
			})
			time.Sleep(300 * time.Millisecond)
			if err := end(token); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			refused(t, ended(t, "the configuration", configuration), "403 (")
			refused(t, ended(t, "the leaf", leaves), "403 (")
			if took := time.Since(began); took > soon {
				t.Fatalf("it took %s", took)
			}
			if err := ended(t, "the list of roots", trusted); err != io.ErrNoProgress {
				t.Fatal(err)
			}
		})
	}
}

func TestPolicyThatChangesCountsAtOnce(t *testing.T) {
	acl := manager(t).ACL()
	client, token := with(t, `service "web" { policy = "read" }`)
	_, _, err := client.Agent().ConnectCALeaf("web", nil)
	refused(t, err, "403 (")
	policy := must(acl.PolicyRead(token.Policies[0].ID, nil))(t)
	policy.Rules = `service "web" { policy = "write" }`
	must(acl.PolicyUpdate(policy, nil))(t)
	must(client.Agent().ConnectCALeaf("web", nil))(t)
	policy.Datacenters = []string{"dc2"}
	must(acl.PolicyUpdate(policy, nil))(t)
	_, _, err = client.Agent().ConnectCALeaf("web", nil)
	refused(t, err, "403 (")
}

// The token of a query goes before that of the client, and an anonymous caller has what the anonymous token has.
func TestWhichTokenCounts(t *testing.T) {
	acl := manager(t).ACL()
	client, token := with(t, `operator = "read"`)
	_, _, err := client.ACL().PolicyList(&api.QueryOptions{Token: must1(bootstrapped())(t).SecretID})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = client.ACL().PolicyList(nil)
	refused(t, err, lacks(token, "acl:read"))
	link := []*api.ACLLink{{ID: token.Policies[0].ID}}
	must(acl.TokenUpdate(&api.ACLToken{AccessorID: anonymous, Description: "Anonymous Token", Policies: link}, nil))(t)
	must1(connect(t, "").Operator().RaftGetConfiguration(nil))(t)
	must(acl.TokenUpdate(&api.ACLToken{AccessorID: anonymous, Description: "Anonymous Token"}, nil))(t)
	_, err = connect(t, "").Operator().RaftGetConfiguration(nil)
	refused(t, err, "anonymous token lacks permission 'operator:read'."+anonymity)
}
