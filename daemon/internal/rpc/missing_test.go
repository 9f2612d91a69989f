package rpc

import (
	"errors"
	"strings"
	"testing"

	"buf.build/go/protovalidate"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// TestWhatIsMissingHasNoValue: `is missing: ..., not ""` would be read as if it were not missing.
func TestWhatIsMissingHasNoValue(t *testing.T) {
	var invalid *protovalidate.ValidationError
	if err := protovalidate.Validate(&echov1.PurgeEndpointsRequest{}); !errors.As(err, &invalid) {
		t.Fatalf("a purge without a filter: %v", err)
	}
	if text := fromRules(invalid).Error(); !strings.HasSuffix(text, `"*" is all of them`) {
		t.Error(text)
	}
}
