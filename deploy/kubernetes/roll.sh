#!/bin/sh
# roll.sh [NAMESPACE]: restart all nodes with what was applied last, each after the one before is in sync again.
#
# Stops at the first that is not well within ten minutes; run it again when that is mended.
set -eu
namespace=${1:-default}

kubectl="kubectl --namespace $namespace"
for pod in $($kubectl get pods --selector app=ottla --output name | sort); do
    $kubectl delete "$pod"
    until $kubectl wait --for condition=Ready --timeout 600s "$pod" 2>/dev/null; do
        # The old pod is gone and the new one is not there yet.
        sleep 1
    done
    $kubectl exec "$pod" -- ottla cluster wait --timeout 600 --bootstrap 127.0.0.1:9092
done
