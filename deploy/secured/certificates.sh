#!/bin/sh
# certificates.sh FOLDER HOST...: an authority, and certificates of it for nodes, etcd and the administrator.
#
# HOSTs are all names and addresses of nodes and of etcd. Run it again for new certificates: the authority stays,
# unless ca.pem and ca.key are moved away. Keep ca.key where nothing else is; nobody needs it but this script.
set -eu
[ $# -ge 2 ] || { echo "usage: certificates.sh FOLDER HOST..." >&2; exit 2; }
folder=$1
shift
umask 077
mkdir -p "$folder"
cd "$folder"

names=
for host in "$@" localhost 127.0.0.1; do
    case $host in
        *:*) kind=IP ;;
        *[!0-9.]*) kind=DNS ;;
        *) kind=IP ;;
    esac
    names=$names,$kind:$host
done

# issue NAME DAYS SIGNER...: NAME.key and NAME.crt, with the extensions that come in.
issue() {
    name=$1 days=$2
    shift 2
    cat >extensions
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$name.key" 2>/dev/null
    openssl req -new -key "$name.key" -subj "/CN=$name" -out request
    openssl x509 -req -in request -days "$days" -set_serial "0x$(openssl rand -hex 15)" \
        -extfile extensions -out "$name.crt" "$@" 2>/dev/null
    rm extensions request
}

if [ ! -e ca.pem ]; then
    issue ca 3650 -signkey ca.key <<end
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
end
    mv ca.crt ca.pem
fi
for who in node etcd admin; do
    issue "$who" 365 -CA ca.pem -CAkey ca.key <<end
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = ${names#,}
authorityKeyIdentifier = keyid
end
    # Key and certificate in one file, as nodes and commands take them.
    cat "$who.key" "$who.crt" >"$who.pem.new"
    mv "$who.pem.new" "$who.pem"
done

for user in root ottla; do
    [ -e "etcd-$user.password" ] || openssl rand -hex 24 >"etcd-$user.password"
done
# As whom etcd's health is asked for, in compose.yaml.
printf 'ETCDCTL_USER=ottla\nETCDCTL_PASSWORD=%s\n' "$(cat etcd-ottla.password)" >etcdctl.env
cat >admin.properties <<end
security.protocol=SSL
ssl.ca.location=$PWD/ca.pem
ssl.certificate.location=$PWD/admin.pem
ssl.key.location=$PWD/admin.pem
end
