// Package goclient drives running nodes with Consul's own Go client and judges certificates with Go's own verifier.
//
// QUORUMCA_NODES lists the HTTP addresses of all nodes of one cluster, separated by commas.
package goclient

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	day      = 24 * time.Hour
	bound    = 10 * time.Second
	longWait = 20 * time.Second
)

func addresses(t *testing.T) []string {
	t.Helper()
	value := os.Getenv("QUORUMCA_NODES")
	if value == "" {
		t.Skip("QUORUMCA_NODES is not set")
	}
	return strings.Split(value, ",")
}

func connect(t *testing.T, address string) *api.Client {
	t.Helper()
	client, err := api.NewClient(&api.Config{Address: address, Scheme: "http"})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// onEveryNode runs check as a subtest for each node.
func onEveryNode(t *testing.T, check func(t *testing.T, client *api.Client)) {
	t.Helper()
	for number, address := range addresses(t) {
		t.Run(fmt.Sprintf("node-%d", number+1), func(t *testing.T) { check(t, connect(t, address)) })
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func currentConfig(t *testing.T, client *api.Client) *api.CAConfig {
	t.Helper()
	config, _, err := client.Connect().CAGetConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func parsed(t *testing.T, config *api.CAConfig) *api.ConsulCAProviderConfig {
	t.Helper()
	return must[*api.ConsulCAProviderConfig](t)(api.ParseConsulCAConfig(config.Config))
}

func currentRoots(t *testing.T, client *api.Client) *api.CARootList {
	t.Helper()
	roots, meta, err := client.Connect().CARoots(nil)
	if err != nil {
		t.Fatal(err)
	}
	if meta.LastIndex == 0 || !meta.KnownLeader {
		t.Fatalf("roots: LastIndex %d, KnownLeader %v", meta.LastIndex, meta.KnownLeader)
	}
	return roots
}

// The tests below run in the order in which they are written; this one must see the configuration of a new CA.
func TestDefaultConfig(t *testing.T) {
	onEveryNode(t, func(t *testing.T, client *api.Client) {
		config := currentConfig(t, client)
		if config.Provider != "consul" || config.CreateIndex == 0 || config.ModifyIndex < config.CreateIndex {
			t.Fatalf("%+v", config)
		}
		got := parsed(t, config)
		if got.LeafCertTTL != 72*time.Hour || got.IntermediateCertTTL != 365*day || got.RootCertTTL != 10*365*day {
			t.Fatalf("%+v", got)
		}
	})
}

func TestRoots(t *testing.T) {
	var first *api.CARootList
	onEveryNode(t, func(t *testing.T, client *api.Client) {
		roots := currentRoots(t, client)
		if len(roots.Roots) != 1 || !roots.Roots[0].Active || roots.Roots[0].ID != roots.ActiveRootID {
			t.Fatalf("%+v", roots)
		}
		if roots.Roots[0].Name == "" || roots.Roots[0].CreateIndex == 0 || roots.Roots[0].ModifyIndex == 0 {
			t.Fatalf("%+v", roots.Roots[0])
		}
		if uri := certificate(t, roots.Roots[0].RootCertPEM).URIs[0].String(); uri != "spiffe://"+roots.TrustDomain {
			t.Fatalf("the root is of %s, not of %s", uri, roots.TrustDomain)
		}
		agents, meta, err := client.Agent().ConnectCARoots(nil)
		if err != nil || meta.LastIndex == 0 {
			t.Fatalf("agent roots: %v, %+v", err, meta)
		}
		for _, other := range []*api.CARootList{first, agents} {
			if other != nil && (other.ActiveRootID != roots.ActiveRootID || other.TrustDomain != roots.TrustDomain) {
				t.Fatalf("%+v and %+v", roots, other)
			}
		}
		first = roots
	})
}

func TestSetConfigIsReadBackOnEveryNode(t *testing.T) {
	all := addresses(t)
	for number, address := range all {
		config := currentConfig(t, connect(t, address))
		want := api.ConsulCAProviderConfig{
			CommonCAProviderConfig: api.CommonCAProviderConfig{
				LeafCertTTL: time.Duration(72+number) * time.Hour,
				RootCertTTL: 11 * 365 * day,
			},
			IntermediateCertTTL: 300 * day,
		}
		// Go prints durations as whole nanoseconds.
		config.Config = map[string]any{
			"LeafCertTTL":         want.LeafCertTTL,
			"IntermediateCertTTL": want.IntermediateCertTTL,
			"RootCertTTL":         want.RootCertTTL,
			"test_state":          map[string]string{"foo": "bar"},
		}
		if _, err := connect(t, address).Connect().CASetConfig(config, nil); err != nil {
			t.Fatal(err)
		}
		for _, other := range all {
			stored := currentConfig(t, connect(t, other))
			got := parsed(t, stored)
			if *got != want || stored.State["foo"] != "bar" || stored.ModifyIndex <= config.ModifyIndex {
				t.Fatalf("set on %s, read on %s: %+v, State %v", address, other, got, stored.State)
			}
		}
		// The configuration that was read first is out of date by now.
		config.Config["LeafCertTTL"] = "99h"
		_, err := connect(t, address).Connect().CASetConfig(config, nil)
		if err == nil || !strings.Contains(err.Error(), "409") {
			t.Fatalf("a write with a stale ModifyIndex: %v", err)
		}
	}
}

func TestInvalidConfigIsRefused(t *testing.T) {
	onEveryNode(t, func(t *testing.T, client *api.Client) {
		before := currentConfig(t, client)
		refused := *before
		refused.Config = map[string]any{"LeafCertTTL": "30m"}
		_, err := client.Connect().CASetConfig(&refused, nil)
		if err == nil || !strings.Contains(err.Error(), "leaf cert TTL must be greater or equal than 1h0m0s") {
			t.Fatalf("%v", err)
		}
		if after := currentConfig(t, client); after.ModifyIndex != before.ModifyIndex {
			t.Fatalf("the index went from %d to %d", before.ModifyIndex, after.ModifyIndex)
		}
	})
}

func TestLeaf(t *testing.T) {
	serials := map[string]bool{}
	onEveryNode(t, func(t *testing.T, client *api.Client) {
		leaf, meta, err := client.Agent().ConnectCALeaf("foo", nil)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if leaf.Service != "foo" || !strings.HasSuffix(leaf.ServiceURI, "/svc/foo") || leaf.ModifyIndex == 0 {
			t.Fatalf("%+v", leaf)
		}
		if !leaf.ValidAfter.Before(now) || !leaf.ValidBefore.After(now) || meta.LastIndex == 0 {
			t.Fatalf("%+v, %+v", leaf, meta)
		}
		if leaf.SerialNumber == "" || serials[leaf.SerialNumber] {
			t.Fatalf("serial %q, others %v", leaf.SerialNumber, serials)
		}
		serials[leaf.SerialNumber] = true
		again, _, err := client.Agent().ConnectCALeaf("foo", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: time.Second})
		if err != nil || again.SerialNumber != leaf.SerialNumber {
			t.Fatalf("a blocking query without news: %v, %+v", err, again)
		}
	})
}

func TestLeavesShakeHands(t *testing.T) {
	all := addresses(t)
	for number := range all {
		one, other := connect(t, all[number]), connect(t, all[(number+1)%len(all)])
		server, client := leafOf(t, one, "server"), leafOf(t, other, "client")
		shakeHands(t, server, client, poolOf(t, other))
	}
}

func leafOf(t *testing.T, client *api.Client, service string) *api.LeafCert {
	t.Helper()
	leaf, _, err := client.Agent().ConnectCALeaf(service, nil)
	if err != nil {
		t.Fatal(err)
	}
	chain := certificates(t, leaf.CertPEM)
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		options := x509.VerifyOptions{
			Roots: poolOf(t, client), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{usage},
		}
		if _, err := chain[0].Verify(options); err != nil {
			t.Fatalf("%s: %v", service, err)
		}
	}
	if len(chain[0].URIs) != 1 || chain[0].URIs[0].String() != leaf.ServiceURI {
		t.Fatalf("%v is not %s", chain[0].URIs, leaf.ServiceURI)
	}
	return leaf
}

func poolOf(t *testing.T, client *api.Client) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	for _, root := range currentRoots(t, client).Roots {
		pool.AddCert(certificate(t, root.RootCertPEM))
	}
	return pool
}

// shakeHands makes one TLS 1.3 connection between holders of two leaves; each side sees the other's SPIFFE ID.
func shakeHands(t *testing.T, server, client *api.LeafCert, roots *x509.CertPool) {
	t.Helper()
	near, far := net.Pipe()
	deadline := time.Now().Add(bound)
	_ = near.SetDeadline(deadline)
	_ = far.SetDeadline(deadline)
	serving := tls.Server(far, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{keyPair(t, server)},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
	})
	failed := make(chan error, 1)
	go func() {
		err := serving.Handshake()
		if err == nil {
			_, err = serving.Write([]byte{1})
		}
		failed <- err
	}()
	asking := tls.Client(near, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{keyPair(t, client)},
		// SPIFFE: the URI counts, not a host name, so the chain is judged here.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			intermediates := x509.NewCertPool()
			for _, cert := range state.PeerCertificates[1:] {
				intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
			return err
		},
	})
	if _, err := asking.Read(make([]byte, 1)); err != nil {
		t.Fatalf("client: %v", err)
	}
	if err := <-failed; err != nil {
		t.Fatalf("server: %v", err)
	}
	wantPeer(t, asking, server.ServiceURI)
	wantPeer(t, serving, client.ServiceURI)
}

func wantPeer(t *testing.T, connection *tls.Conn, uri string) {
	t.Helper()
	want := must[*url.URL](t)(url.Parse(uri))
	state := connection.ConnectionState()
	if state.Version != tls.VersionTLS13 || *state.PeerCertificates[0].URIs[0] != *want {
		t.Fatalf("version %x, peer %v, not %v", state.Version, state.PeerCertificates[0].URIs, want)
	}
}

func keyPair(t *testing.T, leaf *api.LeafCert) tls.Certificate {
	t.Helper()
	return must[tls.Certificate](t)(tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM)))
}

func certificate(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	return certificates(t, text)[0]
}

func certificates(t *testing.T, text string) []*x509.Certificate {
	t.Helper()
	var found []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		found = append(found, must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes)))
	}
	if len(found) == 0 {
		t.Fatalf("no certificate in %q", text)
	}
	return found
}

func TestAuthorize(t *testing.T) {
	onEveryNode(t, func(t *testing.T, client *api.Client) {
		params := &api.AgentAuthorizeParams{
			Target:           "foo",
			ClientCertSerial: "fake",
			ClientCertURI:    "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/ny1/svc/web",
		}
		answer := must[*api.AgentAuthorize](t)(client.Agent().ConnectAuthorize(params))
		if !answer.Authorized || answer.Reason != "Default behavior configured by ACLs" {
			t.Fatalf("%+v", answer)
		}
	})
}

func TestServers(t *testing.T) {
	size := len(addresses(t))
	leaders := map[string]bool{}
	onEveryNode(t, func(t *testing.T, client *api.Client) {
		leader := must[string](t)(client.Status().Leader())
		leaders[leader] = true
		peers := must[[]string](t)(client.Status().Peers())
		if len(peers) != size || !slices.Contains(peers, leader) {
			t.Fatalf("leader %q, peers %v", leader, peers)
		}
		raft := must[*api.RaftConfiguration](t)(client.Operator().RaftGetConfiguration(nil))
		voters, leading := 0, ""
		for _, server := range raft.Servers {
			if server.Voter && slices.Contains(peers, server.Address) {
				voters++
			}
			if server.Leader {
				leading = server.Address
			}
		}
		if voters != size || leading != leader || raft.Index == 0 {
			t.Fatalf("%+v", raft)
		}
		health := must[*api.OperatorHealthReply](t)(client.Operator().AutopilotServerHealth(nil))
		if !health.Healthy || health.FailureTolerance != (size-1)/2 || len(health.Servers) != size {
			t.Fatalf("%+v", health)
		}
		for _, server := range health.Servers {
			if !server.Healthy || server.LastContact == nil || server.LastContact.Duration() > bound {
				t.Fatalf("%+v", server)
			}
		}
	})
	if len(leaders) != 1 {
		t.Fatalf("the nodes name %v", leaders)
	}
}

func TestAgent(t *testing.T) {
	names := map[string]bool{}
	onEveryNode(t, func(t *testing.T, client *api.Client) {
		names[must[string](t)(client.Agent().NodeName())] = true
		metrics := must[*api.MetricsInfo](t)(client.Agent().Metrics())
		if metrics.Timestamp == "" || len(metrics.Gauges) == 0 || len(metrics.Counters) == 0 || len(metrics.Samples) == 0 {
			t.Fatalf("%+v", metrics)
		}
		datacenters := must[[]string](t)(client.Catalog().Datacenters())
		if !slices.Equal(datacenters, []string{"dc1"}) {
			t.Fatalf("%v", datacenters)
		}
	})
	if len(names) != len(addresses(t)) {
		t.Fatalf("the nodes are called %v", names)
	}
}

// A change made on one node wakes the blocking queries on all others, with an index above theirs.
func TestBlockingQueriesWakeOnEveryNode(t *testing.T) {
	type outcome struct {
		index uint64
		took  time.Duration
		err   error
	}
	all := addresses(t)
	_, meta, err := connect(t, all[0]).Connect().CARoots(nil)
	if err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	outcomes := make(chan outcome, 2*len(all))
	wait := &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: longWait}
	for _, address := range all {
		client := connect(t, address)
		for _, roots := range []func(*api.QueryOptions) (*api.CARootList, *api.QueryMeta, error){
			client.Connect().CARoots, client.Agent().ConnectCARoots,
		} {
			go func() {
				_, woken, err := roots(wait)
				result := outcome{took: time.Since(asked), err: err}
				if err == nil {
					result.index = woken.LastIndex
				}
				outcomes <- result
			}()
		}
	}
	// A query that came behind the change would be answered too, so nothing has to be known about when they arrive.
	config := currentConfig(t, connect(t, all[len(all)-1]))
	config.Config["LeafCertTTL"] = 50 * time.Hour
	if _, err := connect(t, all[len(all)-1]).Connect().CASetConfig(config, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 * len(all) {
		if got := <-outcomes; got.err != nil || got.index <= meta.LastIndex || got.took > longWait/2 {
			t.Fatalf("woken behind index %d: %+v", meta.LastIndex, got)
		}
	}
}
