package acl

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestTokens(t *testing.T) {
	acl := manager(t).ACL()
	policy, other := newPolicy(t, `operator = "read"`), newPolicy(t, `mesh = "write"`)
	role := must(acl.RoleCreate(&api.ACLRole{Name: unique("role"), Policies: []*api.ACLLink{{Name: other.Name}}}, nil))(t)
	wanted := &api.ACLToken{
		AccessorID:        "5ca1ab1e-0000-4000-8000-00000000a001",
		SecretID:          "5ca1ab1e-0000-4000-8000-00000000b001",
		Description:       "for everything",
		Policies:          []*api.ACLLink{{Name: policy.Name}},
		Roles:             []*api.ACLLink{{ID: role.ID}},
		ServiceIdentities: []*api.ACLServiceIdentity{{ServiceName: "web", Datacenters: []string{"dc1"}}},
		NodeIdentities:    []*api.ACLNodeIdentity{{NodeName: "node-9", Datacenter: "dc1"}},
		ExpirationTTL:     time.Hour,
	}
	made := must(acl.TokenCreate(wanted, nil))(t)
	if made.AccessorID != wanted.AccessorID || made.SecretID != wanted.SecretID || made.ExpirationTTL != 0 {
		t.Fatalf("%+v", made)
	}
	if left := time.Until(*made.ExpirationTime); left < 59*time.Minute || left > 61*time.Minute {
		t.Fatalf("expires in %s", left)
	}
	if age := time.Since(made.CreateTime); age < -time.Minute || age > time.Minute || len(made.Hash) == 0 {
		t.Fatalf("%+v", made)
	}
	same(t, made.Policies, []*api.ACLLink{{ID: policy.ID, Name: policy.Name}})
	same(t, made.Roles, []*api.ACLLink{{ID: role.ID, Name: role.Name}})
	same(t, made.ServiceIdentities, wanted.ServiceIdentities)
	same(t, made.NodeIdentities, wanted.NodeIdentities)

	// A SecretID is shown once; whoever sends it may see it.
	shown := *made
	shown.SecretID = hidden
	read, meta, err := acl.TokenRead(made.AccessorID, nil)
	if err != nil || meta.LastIndex < made.ModifyIndex || !meta.KnownLeader || meta.DefaultACLPolicy != "deny" {
		t.Fatalf("%v, %+v", err, meta)
	}
	same(t, read, &shown)
	same(t, must(connect(t, made.SecretID).ACL().TokenReadSelf(nil))(t), made)
	self := must(connect(t, "").ACL().TokenReadSelf(nil))(t)
	if self.AccessorID != anonymous || self.SecretID != "anonymous" || self.Description != "Anonymous Token" {
		t.Fatalf("%+v", self)
	}
	whole := must(acl.TokenReadExpanded(made.AccessorID, nil))(t)
	same(t, whole.ACLToken, shown)
	if len(whole.ExpandedPolicies) != 2 || len(whole.ExpandedRoles) != 1 || whole.ExpandedRoles[0].ID != role.ID {
		t.Fatalf("%+v", whole)
	}
	if whole.AgentACLDefaultPolicy != "deny" || whole.AgentACLDownPolicy != "deny" || whole.ResolvedByAgent == "" {
		t.Fatalf("%+v", whole)
	}

	// What was read can be sent back; lists that are left out are gone, and the rest stays.
	again := must(acl.TokenUpdate(read, nil))(t)
	again.ModifyIndex = read.ModifyIndex
	same(t, again, read)
	updated := must(acl.TokenUpdate(&api.ACLToken{AccessorID: made.AccessorID, Description: "less"}, nil))(t)
	if updated.Policies != nil || updated.Roles != nil || updated.ServiceIdentities != nil || updated.NodeIdentities != nil {
		t.Fatalf("%+v", updated)
	}
	if updated.CreateIndex != made.CreateIndex || updated.ModifyIndex <= made.ModifyIndex || updated.SecretID != hidden {
		t.Fatalf("%+v", updated)
	}
	if string(updated.Hash) == string(made.Hash) || !updated.ExpirationTime.Equal(*made.ExpirationTime) {
		t.Fatalf("%+v", updated)
	}

	cloned := must(acl.TokenClone(made.AccessorID, "another", nil))(t)
	if cloned.AccessorID == made.AccessorID || cloned.SecretID == made.SecretID || cloned.SecretID == hidden {
		t.Fatalf("%+v", cloned)
	}
	if cloned.Description != "another" || !cloned.ExpirationTime.Equal(*made.ExpirationTime) {
		t.Fatalf("%+v", cloned)
	}

	for _, token := range []*api.ACLToken{made, cloned} {
		must1(acl.TokenDelete(token.AccessorID, nil))(t)
		_, err = acl.TokenDelete(token.AccessorID, nil)
		refused(t, err, "404 (Cannot find token to delete)")
		_, _, err = acl.TokenRead(token.AccessorID, nil)
		refused(t, err, "403 (token does not exist: ACL not found)")
		_, _, err = connect(t, token.SecretID).ACL().TokenReadSelf(nil)
		refused(t, err, notFound)
	}
}

func TestTokenMistakes(t *testing.T) {
	acl := manager(t).ACL()
	first := must1(bootstrapped())(t)
	local := must(acl.TokenCreate(&api.ACLToken{Local: true}, nil))(t)
	past, soon := time.Now().Add(-time.Minute), time.Now().Add(1234567891*time.Nanosecond)
	for said, token := range map[string]*api.ACLToken{
		"Invalid Token: AccessorID - not a valid UUID":                     {AccessorID: "x"},
		"Invalid Token: AccessorID is already in use":                      {AccessorID: first.AccessorID},
		"Invalid Token: SecretID is already in use":                        {SecretID: first.SecretID},
		"Invalid Token: SecretID - UUIDs with the prefix":                  {SecretID: anonymous},
		"Token Expiration TTL '-1s' should be > 0":                         {ExpirationTTL: -time.Second},
		"ExpirationTime cannot be less than 1m0s in the future (was ":      {ExpirationTTL: time.Second},
		"ExpirationTime cannot be more than 24h0m0s in the future (was ":   {ExpirationTTL: 25 * time.Hour},
		"ExpirationTime cannot be before CreateTime":                       {ExpirationTime: &past},
		"less than 1m0s in the future":                                     {ExpirationTime: &soon},
		"Token Expiration TTL and Expiration Time cannot both be set":      {ExpirationTTL: time.Hour, ExpirationTime: &soon},
		`No such ACL policy with name "nosuch"`:                            {Policies: []*api.ACLLink{{Name: "nosuch"}}},
		`No such ACL policy with ID "` + unknownID:                         {Policies: []*api.ACLLink{{ID: unknownID}}},
		`No such ACL role with name "nosuch"`:                              {Roles: []*api.ACLLink{{Name: "nosuch"}}},
		"Service identity is missing the service name field on this token": {ServiceIdentities: []*api.ACLServiceIdentity{{}}},
		`Service identity "Web" has an invalid name.`:                      {ServiceIdentities: []*api.ACLServiceIdentity{{ServiceName: "Web"}}},
		"Node identity is missing the datacenter field on this token":      {NodeIdentities: []*api.ACLNodeIdentity{{NodeName: "n"}}},
		"AuthMethod field is disallowed outside of login":                  {AuthMethod: "jwt"},
		"templated policies are not supported":                             {TemplatedPolicies: []*api.ACLTemplatedPolicy{{TemplateName: "builtin/service"}}},
	} {
		_, _, err := acl.TokenCreate(token, nil)
		refused(t, err, said)
		refused(t, err, "400 (")
	}
	for said, token := range map[string]*api.ACLToken{
		"Cannot toggle local mode of " + local.AccessorID:      {AccessorID: local.AccessorID},
		"Changing a token's SecretID is not permitted":         {AccessorID: local.AccessorID, Local: true, SecretID: unknownID},
		"Cannot change AuthMethod of " + local.AccessorID:      {AccessorID: local.AccessorID, Local: true, AuthMethod: "jwt"},
		"Cannot change expiration time of " + local.AccessorID: {AccessorID: local.AccessorID, Local: true, ExpirationTTL: time.Hour},
		`Cannot find token "` + unknownID:                      {AccessorID: unknownID},
	} {
		_, _, err := acl.TokenUpdate(token, nil)
		refused(t, err, said)
	}
	_, err := acl.TokenDelete(anonymous, nil)
	refused(t, err, "Delete operation not permitted on the anonymous token")
	_, err = acl.TokenDelete(first.AccessorID, nil)
	refused(t, err, "Deletion of the request's authorization token is not permitted")
	_, _, err = acl.TokenClone(unknownID, "", nil)
	refused(t, err, "ACL not found")
	_, _, err = acl.TokenRead("no-uuid", nil)
	refused(t, err, "400 (")
}

func TestTokenLists(t *testing.T) {
	acl := manager(t).ACL()
	policy := newPolicy(t, `operator = "read"`)
	role := must(acl.RoleCreate(&api.ACLRole{Name: unique("role")}, nil))(t)
	byPolicy := must(acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil))(t)
	byRole := must(acl.TokenCreate(&api.ACLToken{Roles: []*api.ACLLink{{ID: role.ID}}}, nil))(t)
	service := unique("service")
	byService := must(acl.TokenCreate(&api.ACLToken{ServiceIdentities: []*api.ACLServiceIdentity{{ServiceName: service}}}, nil))(t)
	for _, found := range []struct {
		filter api.ACLTokenFilterOptions
		token  *api.ACLToken
	}{
		{api.ACLTokenFilterOptions{Policy: policy.ID}, byPolicy},
		{api.ACLTokenFilterOptions{Role: role.ID}, byRole},
		{api.ACLTokenFilterOptions{ServiceName: service}, byService},
	} {
		list, meta, err := acl.TokenListFiltered(found.filter, nil)
		if err != nil || meta.LastIndex == 0 || len(list) != 1 || list[0].AccessorID != found.token.AccessorID {
			t.Fatalf("%+v: %v, %+v", found.filter, err, list)
		}
		if list[0].SecretID != hidden || string(list[0].Hash) != string(found.token.Hash) {
			t.Fatalf("%+v", list[0])
		}
	}
	_, _, err := acl.TokenListFiltered(api.ACLTokenFilterOptions{Policy: policy.ID, Role: role.ID}, nil)
	refused(t, err, "can only filter by one of policy, role, serviceName, or methodName at a time")
	all := must(acl.TokenList(nil))(t)
	for _, wanted := range []string{anonymous, byPolicy.AccessorID, byRole.AccessorID, byService.AccessorID} {
		if !slices.ContainsFunc(all, func(entry *api.ACLTokenListEntry) bool { return entry.AccessorID == wanted }) {
			t.Fatalf("%s is not listed", wanted)
		}
	}
}

func TestPolicies(t *testing.T) {
	acl := manager(t).ACL()
	wanted := &api.ACLPolicy{
		Name:        unique("team/policy"),
		Description: "some",
		Rules:       `service_prefix "" { policy = "read" }`,
		Datacenters: []string{"dc1", "dc2"},
	}
	made := must(acl.PolicyCreate(wanted, nil))(t)
	for _, read := range []*api.ACLPolicy{
		must(acl.PolicyRead(made.ID, nil))(t),
		must(acl.PolicyReadByName(wanted.Name, nil))(t),
	} {
		same(t, read, made)
	}
	if made.Rules != wanted.Rules || made.Description != "some" || len(made.Hash) == 0 || made.CreateIndex == 0 {
		t.Fatalf("%+v", made)
	}
	changed := *made
	changed.Rules, changed.Datacenters = `acl = "read"`, nil
	updated := must(acl.PolicyUpdate(&changed, nil))(t)
	if updated.CreateIndex != made.CreateIndex || updated.ModifyIndex <= made.ModifyIndex || updated.Datacenters != nil {
		t.Fatalf("%+v", updated)
	}
	for said, policy := range map[string]*api.ACLPolicy{
		"Invalid Policy: no Name is set":                                                {},
		"Invalid Policy: invalid Name. Names cannot be prefixed with '/' or 'builtin/'": {Name: "builtin/x"},
		"Only alphanumeric characters, a single '/', '-' and '_' are allowed":           {Name: "a b"},
		"Length must be greater than 0 and less than 128":                               {Name: strings.Repeat("a", 129)},
		`Invalid Policy: A Policy with Name "` + made.Name + `" already exists`:         {Name: made.Name},
		"Failed to parse ACL rules":                                                     {Name: "x", Rules: `service "web" {`},
		"Invalid service policy":                                                        {Name: "x", Rules: `service "web" { policy = "x" }`},
	} {
		_, _, err := acl.PolicyCreate(policy, nil)
		refused(t, err, said)
		refused(t, err, "400 (")
	}
	_, _, err := acl.PolicyUpdate(&api.ACLPolicy{ID: unknownID, Name: "x"}, nil)
	refused(t, err, "cannot find policy "+unknownID)

	if _, _, err = acl.PolicyUpdate(&api.ACLPolicy{ID: management, Name: "global-management", Rules: `acl = "read"`}, nil); err == nil {
		t.Fatal("rules of global-management were changed")
	}
	for _, builtin := range []string{management, anonymous} { // the second is also the ID of global-read-only
		if _, err = acl.PolicyDelete(builtin, nil); err == nil {
			t.Fatalf("%s was deleted", builtin)
		}
	}
	readOnly := must(acl.PolicyReadByName("builtin/global-read-only", nil))(t)
	if readOnly.ID != "00000000-0000-0000-0000-000000000002" || !strings.Contains(readOnly.Rules, `operator = "read"`) {
		t.Fatalf("%+v", readOnly)
	}

	// A policy that is in use may go: it goes from whatever has it.
	token := must(acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: made.ID}}}, nil))(t)
	must1(acl.PolicyDelete(made.ID, nil))(t)
	if read := must(acl.TokenRead(token.AccessorID, nil))(t); read.Policies != nil {
		t.Fatalf("%+v", read)
	}
	_, _, err = acl.PolicyRead(made.ID, nil)
	refused(t, err, "404 (")
	if gone, _, err := acl.PolicyReadByName(wanted.Name, nil); gone != nil || err != nil {
		t.Fatalf("%v, %v", gone, err)
	}
	list, meta, err := acl.PolicyList(nil)
	if err != nil || meta.LastIndex == 0 || len(list) < 2 || list[0].Hash == nil {
		t.Fatalf("%v, %+v", err, list)
	}
}

func TestRoles(t *testing.T) {
	acl := manager(t).ACL()
	policy := newPolicy(t, `operator = "read"`)
	wanted := &api.ACLRole{
		Name:              unique("role"),
		Description:       "some",
		Policies:          []*api.ACLLink{{Name: policy.Name}},
		ServiceIdentities: []*api.ACLServiceIdentity{{ServiceName: "web"}},
		NodeIdentities:    []*api.ACLNodeIdentity{{NodeName: "node-9", Datacenter: "dc1"}},
	}
	made := must(acl.RoleCreate(wanted, nil))(t)
	same(t, made.Policies, []*api.ACLLink{{ID: policy.ID, Name: policy.Name}})
	same(t, made.ServiceIdentities, wanted.ServiceIdentities)
	same(t, made.NodeIdentities, wanted.NodeIdentities)
	same(t, must(acl.RoleRead(made.ID, nil))(t), made)
	same(t, must(acl.RoleReadByName(made.Name, nil))(t), made)
	updated := must(acl.RoleUpdate(&api.ACLRole{ID: made.ID, Name: made.Name + "-2"}, nil))(t)
	if updated.Policies != nil || updated.ServiceIdentities != nil || updated.ModifyIndex <= made.ModifyIndex {
		t.Fatalf("%+v", updated)
	}
	token := must(acl.TokenCreate(&api.ACLToken{Roles: []*api.ACLLink{{Name: updated.Name}}}, nil))(t)
	list := must(acl.RoleList(nil))(t)
	if !slices.ContainsFunc(list, func(role *api.ACLRole) bool { return role.Name == updated.Name }) {
		t.Fatalf("%+v", list)
	}
	for said, role := range map[string]*api.ACLRole{
		"Invalid Role: no Name is set":          {},
		"Invalid Role: invalid Name.":           {Name: "a/b"},
		`A Role with Name "` + updated.Name:     {Name: updated.Name},
		`No such ACL policy with name "nosuch"`: {Name: "x", Policies: []*api.ACLLink{{Name: "nosuch"}}},
	} {
		_, _, err := acl.RoleCreate(role, nil)
		refused(t, err, said)
	}
	_, _, err := acl.RoleUpdate(&api.ACLRole{ID: unknownID, Name: "x"}, nil)
	refused(t, err, "cannot find role "+unknownID)
	must1(acl.RoleDelete(made.ID, nil))(t)
	if read := must(acl.TokenRead(token.AccessorID, nil))(t); read.Roles != nil {
		t.Fatalf("%+v", read)
	}
	for _, read := range []func() (*api.ACLRole, *api.QueryMeta, error){
		func() (*api.ACLRole, *api.QueryMeta, error) { return acl.RoleRead(made.ID, nil) },
		func() (*api.ACLRole, *api.QueryMeta, error) { return acl.RoleReadByName(updated.Name, nil) },
	} {
		if gone, _, err := read(); gone != nil || err != nil {
			t.Fatalf("%v, %v", gone, err)
		}
	}
	_, err = acl.RoleDelete(made.ID, nil)
	refused(t, err, "404 (Cannot find role to delete)")
}

func TestReplicationIsOff(t *testing.T) {
	for _, token := range []string{"", unknownID} {
		status := must(connect(t, token).ACL().Replication(nil))(t)
		if status.Enabled || status.Running || !status.LastSuccess.IsZero() || !status.LastError.IsZero() {
			t.Fatalf("%+v", status)
		}
	}
}

// What Consul has dropped, or what is of another edition, is not there, and says so.
func TestWhatIsNotHere(t *testing.T) {
	acl := manager(t).ACL()
	if _, err := acl.RulesTranslateToken(unknownID); err == nil {
		t.Fatal("rules were translated")
	}
	if found, _, err := acl.TemplatedPolicyReadByName("builtin/service", nil); found != nil || err != nil {
		t.Fatalf("%v, %v", found, err)
	}
	_, _, err := acl.TemplatedPolicyList(nil)
	refused(t, err, "404 (")
	_, _, err = acl.OIDCAuthURL(&api.ACLOIDCAuthURLParams{AuthMethod: "x", RedirectURI: "http://localhost"}, nil)
	refused(t, err, "404 (")
	_, _, err = acl.PolicyCreate(&api.ACLPolicy{Name: "x", Namespace: "team"}, nil)
	refused(t, err, "400 (")
	_, _, err = acl.PolicyList(&api.QueryOptions{Namespace: "team"})
	refused(t, err, "400 (")
	_, _, err = acl.PolicyList(&api.QueryOptions{Partition: "team"})
	refused(t, err, "400 (")
	must(acl.PolicyList(&api.QueryOptions{Namespace: "default", Partition: "default"}))(t)
}
