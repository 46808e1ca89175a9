#!/bin/sh
# A deploy hook of certbot: gives pop3d each certificate that certbot has got, where its user can read it.
# Put it into /etc/letsencrypt/renewal-hooks/deploy/, mode 0755, and run it once for the certificate that is there:
#   RENEWED_LINEAGE=/etc/letsencrypt/live/mail.example.org sh /etc/letsencrypt/renewal-hooks/deploy/pop3d-deploy.sh
# Change what your site has elsewhere: the folder for certificates, the group of the mail's user, how pop3d is told.
set -eu

target=${POP3D_TLS:-/etc/pop3d/tls}
group=${POP3D_GROUP:-vmail}
reload=${POP3D_RELOAD:-systemctl --no-block try-reload-or-restart pop3d}

: "${RENEWED_LINEAGE:?certbot names here whose certificate it got, such as /etc/letsencrypt/live/mail.example.org}"
folder=$target/${RENEWED_LINEAGE##*/}

umask 077
mkdir -p "$folder"
# root's alone to write, the group's to read: whoever could write there could have pop3d serve another key
chgrp "$group" "$target" "$folder"
chmod 0750 "$target" "$folder"
# written whole beside the old ones, and renamed at the end: at no time is there half of a file
for name in privkey fullchain; do
    cat "$RENEWED_LINEAGE/$name.pem" >"$folder/$name.pem.new"
    chgrp "$group" "$folder/$name.pem.new"
    chmod 0640 "$folder/$name.pem.new"
done
for name in privkey fullchain; do
    mv -f "$folder/$name.pem.new" "$folder/$name.pem"
done
$reload
