package goclient

// What the tests of Consul's own api package import: test_consul_api.py runs them out of this module, which must
// know them. Nothing else does.
import (
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/go-cmp/cmp/cmpopts"
	_ "github.com/hashicorp/consul/sdk/testutil"
	_ "github.com/hashicorp/consul/sdk/testutil/retry"
	_ "github.com/stretchr/testify/require"
)
