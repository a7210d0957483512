#!/bin/sh
# roll.sh [NAMESPACE]: restart all nodes, one by one, with what was applied last. Default: the namespace default
#
# A node is restarted when the one before it is in sync. If a node is not in sync within ten minutes, the script stops:
# mend that node and run the script again.
set -eu
namespace=${1:-default}

kubectl="kubectl --namespace $namespace"
pods=$($kubectl get pods --selector app=ottla --output name | sort)
nodes=$(echo "$pods" | wc -l)
for pod in $pods; do
    $kubectl delete "$pod"
    # The old pod is gone, and the new one is not there at once.
    seconds=0
    until $kubectl get "$pod" >/dev/null 2>&1; do
        seconds=$((seconds + 1))
        if [ "$seconds" -gt 600 ]; then
            echo "roll.sh: $pod does not come back: the others are left as they are" >&2
            exit 1
        fi
        sleep 1
    done
    $kubectl wait --for condition=Ready --timeout 600s "$pod"
    $kubectl exec "$pod" -- ottla cluster wait --nodes "$nodes" --timeout 600
done
