package acl

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	issuer   = "https://issuer.test"
	audience = "quorumca"
)

type claims map[string]any

// good are claims that the methods below take.
func good(more claims) claims {
	found := claims{
		"iss":     issuer,
		"aud":     []string{"other", audience},
		"iat":     time.Now().Unix(),
		"exp":     time.Now().Add(time.Hour).Unix(),
		"service": "web",
		"groups":  []string{"dev", "ops"},
	}
	for name, value := range more {
		if value == nil {
			delete(found, name)
		} else {
			found[name] = value
		}
	}
	return found
}

// key signs; its public half is in a method, or in a key set.
type key struct {
	id  string
	alg string
	ec  *ecdsa.PrivateKey
	rsa *rsa.PrivateKey
}

func newKey(t *testing.T, alg string) key {
	t.Helper()
	if alg == "RS256" {
		return key{unique("key"), alg, nil, must1(rsa.GenerateKey(rand.Reader, 2048))(t)}
	}
	return key{unique("key"), alg, must1(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t), nil}
}

func (k key) public() crypto.PublicKey {
	if k.ec != nil {
		return &k.ec.PublicKey
	}
	return &k.rsa.PublicKey
}

func (k key) pem(t *testing.T) string {
	t.Helper()
	der := must1(x509.MarshalPKIXPublicKey(k.public()))(t)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (k key) jwk() map[string]string {
	if k.ec != nil {
		x, y := k.ec.X.FillBytes(make([]byte, 32)), k.ec.Y.FillBytes(make([]byte, 32))
		return map[string]string{"kid": k.id, "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y), "alg": k.alg, "use": "sig"}
	}
	return map[string]string{
		"kid": k.id, "kty": "RSA", "n": b64(k.rsa.N.Bytes()), "e": b64(big.NewInt(int64(k.rsa.E)).Bytes()), "alg": k.alg,
	}
}

func (k key) sign(t *testing.T, header claims, payload claims) string {
	t.Helper()
	all := claims{"alg": k.alg, "typ": "JWT", "kid": k.id}
	for name, value := range header {
		all[name] = value
	}
	text := part(t, all) + "." + part(t, payload)
	digest := sha256.Sum256([]byte(text))
	if k.ec != nil {
		r, s, err := ecdsa.Sign(rand.Reader, k.ec, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	}
	return text + "." + b64(must1(rsa.SignPKCS1v15(rand.Reader, k.rsa, crypto.SHA256, digest[:]))(t))
}

func part(t *testing.T, value claims) string {
	t.Helper()
	return b64(must1(json.Marshal(value))(t))
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// jwksServer is a key set over HTTPS, which may be changed.
type jwksServer struct {
	*httptest.Server
	keys  []key
	asked int
}

func newJWKS(t *testing.T, keys ...key) *jwksServer {
	t.Helper()
	set := &jwksServer{keys: keys}
	set.Server = httptest.NewTLSServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		set.asked++
		var found []map[string]string
		for _, key := range set.keys {
			found = append(found, key.jwk())
		}
		writer.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(writer).Encode(map[string]any{"keys": found})
	}))
	t.Cleanup(set.Close)
	return set
}

func (s *jwksServer) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// newMethod is a method of type jwt with a rule by which a login is the service that it claims to be.
func newMethod(t *testing.T, config map[string]any) *api.ACLAuthMethod {
	t.Helper()
	acl := manager(t).ACL()
	all := map[string]any{
		"BoundIssuer":       issuer,
		"BoundAudiences":    []string{audience},
		"ClaimMappings":     map[string]string{"service": "service"},
		"ListClaimMappings": map[string]string{"groups": "groups"},
	}
	for name, value := range config {
		all[name] = value
	}
	method := must(acl.AuthMethodCreate(&api.ACLAuthMethod{
		Name: unique("method"), Type: "jwt", MaxTokenTTL: 5 * time.Minute, Config: all,
	}, nil))(t)
	must(acl.BindingRuleCreate(&api.ACLBindingRule{
		AuthMethod: method.Name,
		BindType:   api.BindingRuleBindTypeService,
		BindName:   "${value.service}",
		Selector:   `"dev" in list.groups and value.service != "root"`,
	}, nil))(t)
	return method
}

func login(t *testing.T, method string, bearer string) (*api.ACLToken, error) {
	t.Helper()
	token, _, err := connect(t, "").ACL().Login(&api.ACLLoginParams{
		AuthMethod: method, BearerToken: bearer, Meta: map[string]string{"pod": "p1", "a": "b"},
	}, nil)
	return token, err
}

func algs(alg string) map[string]any { return map[string]any{"JWTSupportedAlgs": []string{alg}} }

func TestLogin(t *testing.T) {
	for _, alg := range []string{"ES256", "RS256"} {
		signer := newKey(t, alg)
		set := newJWKS(t, signer)
		static, remote := algs(alg), algs(alg)
		static["JWTValidationPubKeys"] = []string{newKey(t, alg).pem(t), signer.pem(t)}
		remote["JWKSURL"], remote["JWKSCACert"] = set.URL+"/keys", set.ca()
		for source, config := range map[string]map[string]any{"static": static, "jwks": remote} {
			t.Run(alg+"-"+source, func(t *testing.T) {
				method := newMethod(t, config)
				checkLogin(t, method, signer)
				checkRefusals(t, method, signer)
			})
		}
	}
}

func checkLogin(t *testing.T, method *api.ACLAuthMethod, signer key) {
	token := must1(login(t, method.Name, signer.sign(t, nil, good(nil))))(t)
	if token.AuthMethod != method.Name || !token.Local || token.SecretID == hidden || len(token.SecretID) != 36 {
		t.Fatalf("%+v", token)
	}
	if token.Description != `token created via login: {"a":"b","pod":"p1"}` {
		t.Fatal(token.Description)
	}
	same(t, token.ServiceIdentities, []*api.ACLServiceIdentity{{ServiceName: "web"}})
	if left := time.Until(*token.ExpirationTime); left < 4*time.Minute || left > 6*time.Minute {
		t.Fatalf("expires in %s", left)
	}
	client := connect(t, token.SecretID)
	leaf, _, err := client.Agent().ConnectCALeaf("web", nil)
	if err != nil || leaf.Service != "web" {
		t.Fatalf("%v, %+v", err, leaf)
	}
	_, _, err = client.Agent().ConnectCALeaf("api", nil)
	refused(t, err, lacks(token, "service:write")+` on "api"`)
	list := must(manager(t).ACL().TokenListFiltered(api.ACLTokenFilterOptions{AuthMethod: method.Name}, nil))(t)
	if len(list) != 1 || list[0].AccessorID != token.AccessorID {
		t.Fatalf("%+v", list)
	}
	_, _, err = manager(t).ACL().TokenClone(token.AccessorID, "", nil)
	refused(t, err, "Cannot clone a token created from an auth method")

	must1(client.ACL().Logout(nil))(t)
	_, err = client.ACL().Logout(nil)
	refused(t, err, notFound)
	_, _, err = client.Agent().ConnectCALeaf("web", nil)
	refused(t, err, notFound)
}

func checkRefusals(t *testing.T, method *api.ACLAuthMethod, signer key) {
	hour := time.Hour
	bearers := map[string]string{
		"of another key":        newKey(t, signer.alg).sign(t, claims{"kid": signer.id}, good(nil)),
		"of another issuer":     signer.sign(t, nil, good(claims{"iss": "https://other.test"})),
		"for another audience":  signer.sign(t, nil, good(claims{"aud": "other"})),
		"for no audience":       signer.sign(t, nil, good(claims{"aud": nil})),
		"expired":               signer.sign(t, nil, good(claims{"exp": time.Now().Add(-hour).Unix(), "iat": time.Now().Add(-2 * hour).Unix()})),
		"not yet valid":         signer.sign(t, nil, good(claims{"nbf": time.Now().Add(hour).Unix()})),
		"of no time":            signer.sign(t, nil, good(claims{"iat": nil, "exp": nil})),
		"that no rule binds":    signer.sign(t, nil, good(claims{"groups": []string{"guests"}})),
		"whose name is none":    signer.sign(t, nil, good(claims{"service": "We b"})),
		"that its rule excepts": signer.sign(t, nil, good(claims{"service": "root"})),
		"that is none":          "a.b.c",
		"unsigned":              part(t, claims{"alg": "none"}) + "." + part(t, good(nil)) + ".",
		"signed by public key":  signedWithPublicKey(t, signer),
	}
	for what, bearer := range bearers {
		if token, err := login(t, method.Name, bearer); err == nil || !strings.HasSuffix(err.Error(), "403 (Permission denied)") {
			t.Fatalf("a token %s: %v, %+v", what, err, token)
		}
	}
}

// signedWithPublicKey is HS256 under what everybody knows: the mistake of verifiers that let a token choose.
func signedWithPublicKey(t *testing.T, signer key) string {
	t.Helper()
	text := part(t, claims{"alg": "HS256", "kid": signer.id}) + "." + part(t, good(nil))
	mac := hmac.New(sha256.New, []byte(signer.pem(t)))
	mac.Write([]byte(text))
	return text + "." + b64(mac.Sum(nil))
}

func TestLoginWithWhatIsNotThere(t *testing.T) {
	_, err := login(t, "nosuch", "x")
	refused(t, err, `403 (ACL not found: auth method "nosuch" not found)`)
	_, err = connect(t, "").ACL().Logout(nil)
	refused(t, err, "401 (Supplied token does not exist)")
	client, _ := with(t, `operator = "read"`)
	_, err = client.ACL().Logout(nil)
	refused(t, err, "403 (Permission denied: token wasn't created via login)")
}

// A key that the set has only had since a moment ago counts; so does its end, with the method.
func TestKeySetIsFetchedAgainAndMethodsEnd(t *testing.T) {
	first, second := newKey(t, "ES256"), newKey(t, "ES256")
	set := newJWKS(t, first)
	config := algs("ES256")
	config["JWKSURL"], config["JWKSCACert"] = set.URL, set.ca()
	method := newMethod(t, config)
	must1(login(t, method.Name, first.sign(t, nil, good(nil))))(t)
	set.keys = append(set.keys, second)
	var token *api.ACLToken
	for deadline := time.Now().Add(15 * time.Second); token == nil; time.Sleep(200 * time.Millisecond) {
		var err error
		if token, err = login(t, method.Name, second.sign(t, nil, good(nil))); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	acl := manager(t).ACL()
	must1(acl.AuthMethodDelete(method.Name, nil))(t)
	if rules := must(acl.BindingRuleList(method.Name, nil))(t); len(rules) != 0 {
		t.Fatalf("%+v", rules)
	}
	_, _, err := connect(t, token.SecretID).ACL().TokenReadSelf(nil)
	refused(t, err, notFound)
}

func TestAuthMethods(t *testing.T) {
	acl := manager(t).ACL()
	signer := newKey(t, "ES256")
	made := must(acl.AuthMethodCreate(&api.ACLAuthMethod{
		Name:          unique("method"),
		Type:          "jwt",
		DisplayName:   "Shown",
		Description:   "some",
		MaxTokenTTL:   90 * time.Second,
		TokenLocality: "global",
		Config: map[string]any{
			"JWTValidationPubKeys": []string{signer.pem(t)},
			"JWTSupportedAlgs":     "ES256", // one for a list, as Consul takes it
			"ClockSkewLeeway":      int64(30 * time.Second),
		},
	}, nil))(t)
	if made.DisplayName != "Shown" || made.MaxTokenTTL != 90*time.Second || made.TokenLocality != "global" {
		t.Fatalf("%+v", made)
	}
	same(t, must(acl.AuthMethodRead(made.Name, nil))(t), made)
	updated := must(acl.AuthMethodUpdate(&api.ACLAuthMethod{Name: made.Name, Type: "jwt", Config: made.Config}, nil))(t)
	if updated.MaxTokenTTL != 0 || updated.TokenLocality != "local" || updated.ModifyIndex <= made.ModifyIndex {
		t.Fatalf("%+v", updated)
	}
	same(t, updated.Config, made.Config)
	kubernetes := must(acl.AuthMethodCreate(&api.ACLAuthMethod{Name: unique("method"), Type: "kubernetes", Config: map[string]any{
		"Host":              "https://192.0.2.42:8443",
		"CACert":            newJWKS(t).ca(),
		"ServiceAccountJWT": signer.sign(t, nil, good(nil)),
	}}, nil))(t)
	if kubernetes.Config["ServiceAccountJWT"] != hidden {
		t.Fatalf("%+v", kubernetes.Config)
	}
	// What was read can be sent back, and keeps the secret.
	same(t, must(acl.AuthMethodUpdate(kubernetes, nil))(t).Config, kubernetes.Config)

	entries := map[string]*api.ACLAuthMethodListEntry{}
	for _, entry := range must(acl.AuthMethodList(nil))(t) {
		entries[entry.Name] = entry
	}
	if entries[made.Name].Type != "jwt" || entries[kubernetes.Name].Type != "kubernetes" {
		t.Fatalf("%+v", entries)
	}
	for said, method := range map[string]*api.ACLAuthMethod{
		"Must specify a Name in Auth Method Creation":      {Type: "jwt"}, // the client's own
		"Invalid Auth Method: invalid Name.":               {Name: "a b", Type: "jwt"},
		"Invalid Auth Method: Type should be one of: [":    {Name: "x", Type: "oidc"},
		"MaxTokenTTL 1s cannot be less than 1m0s":          {Name: "x", Type: "jwt", MaxTokenTTL: time.Second, Config: made.Config},
		"MaxTokenTTL 25h0m0s cannot be more than 24h0m0s":  {Name: "x", Type: "jwt", MaxTokenTTL: 25 * time.Hour, Config: made.Config},
		"Invalid Auth Method: TokenLocality":               {Name: "x", Type: "jwt", TokenLocality: "here", Config: made.Config},
		"exactly one of 'JWTValidationPubKeys', 'JWKSURL'": {Name: "x", Type: "jwt", Config: map[string]any{}},
		"error decoding config: ":                          {Name: "x", Type: "jwt", Config: map[string]any{"Nonsense": 1}},
		"Invalid supported algorithm: HS256": {Name: "x", Type: "jwt", Config: map[string]any{
			"JWTValidationPubKeys": []string{signer.pem(t)}, "JWTSupportedAlgs": []string{"HS256"},
		}},
		"error checking JWKSURL: ": {Name: "x", Type: "jwt", Config: map[string]any{"JWKSURL": "https://127.0.0.1:1/"}},
	} {
		_, _, err := acl.AuthMethodCreate(method, nil)
		refused(t, err, said)
		if method.Name != "" {
			refused(t, err, "400 (")
		}
	}
	_, _, err := acl.AuthMethodUpdate(&api.ACLAuthMethod{Name: made.Name, Type: "kubernetes"}, nil)
	refused(t, err, "the Type field of an Auth Method is immutable")
	for _, name := range []string{made.Name, kubernetes.Name} {
		must1(acl.AuthMethodDelete(name, nil))(t)
		_, err = acl.AuthMethodDelete(name, nil)
		refused(t, err, "404 (Cannot find auth method to delete)")
		if gone, _, err := acl.AuthMethodRead(name, nil); gone != nil || err != nil {
			t.Fatalf("%v, %v", gone, err)
		}
	}
}

func TestBindingRules(t *testing.T) {
	acl := manager(t).ACL()
	signer := newKey(t, "RS256")
	method := must(acl.AuthMethodCreate(&api.ACLAuthMethod{Name: unique("method"), Type: "jwt", Config: map[string]any{
		"JWTValidationPubKeys": []string{signer.pem(t)},
		"ClaimMappings":        map[string]string{"name": "name", "/org/team": "team"},
	}}, nil))(t)
	policy, role := newPolicy(t, `operator = "read"`), must(acl.RoleCreate(&api.ACLRole{Name: unique("role")}, nil))(t)
	var rules []*api.ACLBindingRule
	for bindType, name := range map[api.BindingRuleBindType]string{
		api.BindingRuleBindTypeService: "svc-${value.name}",
		api.BindingRuleBindTypeNode:    "${value.name}",
		api.BindingRuleBindTypePolicy:  policy.Name,
		api.BindingRuleBindTypeRole:    role.Name,
	} {
		rules = append(rules, must(acl.BindingRuleCreate(&api.ACLBindingRule{
			Description: string(bindType), AuthMethod: method.Name, BindType: bindType, BindName: name, Selector: "value.team == core",
		}, nil))(t))
	}
	missing := must(acl.BindingRuleCreate(&api.ACLBindingRule{
		AuthMethod: method.Name, BindType: api.BindingRuleBindTypePolicy, BindName: "nosuch",
	}, nil))(t)
	token := must1(login(t, method.Name, signer.sign(t, nil, claims{
		"iat": time.Now().Unix(), "name": "n1", "org": claims{"team": "core"},
	})))(t)
	same(t, names(token.Policies), []string{policy.Name})
	same(t, names(token.Roles), []string{role.Name})
	same(t, token.ServiceIdentities, []*api.ACLServiceIdentity{{ServiceName: "svc-n1"}})
	same(t, token.NodeIdentities, []*api.ACLNodeIdentity{{NodeName: "n1", Datacenter: "dc1"}})

	for _, rule := range rules {
		same(t, must(acl.BindingRuleRead(rule.ID, nil))(t), rule)
	}
	if all := must(acl.BindingRuleList("", nil))(t); len(all) < 5 {
		t.Fatalf("%+v", all)
	}
	if own := must(acl.BindingRuleList(method.Name, nil))(t); len(own) != 5 {
		t.Fatalf("%+v", own)
	}
	changed := *missing
	changed.Selector, changed.BindName = "value.team != core", "else"
	updated := must(acl.BindingRuleUpdate(&changed, nil))(t)
	if updated.Selector != changed.Selector || updated.CreateIndex != missing.CreateIndex || updated.ModifyIndex <= missing.ModifyIndex {
		t.Fatalf("%+v", updated)
	}
	valid := api.ACLBindingRule{AuthMethod: method.Name, BindType: "service", BindName: "web"}
	for said, change := range map[string]func(*api.ACLBindingRule){
		"Invalid Binding Rule: no AuthMethod is set":           func(r *api.ACLBindingRule) { r.AuthMethod = "" },
		`cannot find auth method with name "nosuch"`:           func(r *api.ACLBindingRule) { r.AuthMethod = "nosuch" },
		"Invalid Binding Rule: no BindType is set":             func(r *api.ACLBindingRule) { r.BindType = "" },
		`unknown BindType "x"`:                                 func(r *api.ACLBindingRule) { r.BindType = "x" },
		"Invalid Binding Rule: no BindName is set":             func(r *api.ACLBindingRule) { r.BindName = "" },
		"Invalid Binding Rule: invalid BindName or BindVars: ": func(r *api.ACLBindingRule) { r.BindName = "${nosuch}" },
		"invalid Binding Rule: Selector is invalid: ":          func(r *api.ACLBindingRule) { r.Selector = "value.name = x" },
	} {
		rule := valid
		change(&rule)
		_, _, err := acl.BindingRuleCreate(&rule, nil)
		refused(t, err, said)
	}
	for _, rule := range rules {
		must1(acl.BindingRuleDelete(rule.ID, nil))(t)
		_, err := acl.BindingRuleDelete(rule.ID, nil)
		refused(t, err, "404 (Cannot find binding rule to delete)")
		if gone, _, err := acl.BindingRuleRead(rule.ID, nil); gone != nil || err != nil {
			t.Fatalf("%v, %v", gone, err)
		}
	}
}
