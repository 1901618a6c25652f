# The user that the service runs as. Before anything is unpacked: where it cannot be made, the system stays as it was.
if ! getent passwd @PACKAGE@ >/dev/null 2>&1; then
    [ -f /etc/passwd ] || refuse "/etc/passwd is missing, so its user cannot be made"
    [ -w /etc ] || refuse "/etc is read-only, so its user and configuration cannot be made"
    told=$(useradd --system --user-group --no-create-home --home-dir /var/lib/onenet/@KIND@ \
        --shell /usr/sbin/nologin --comment "@SUMMARY@" @PACKAGE@ 2>&1) || refuse "its user cannot be made: $told"
fi
