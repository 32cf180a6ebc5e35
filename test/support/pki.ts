/** Keys and certificates of a test's own authority. */

import type { Namespace } from './host.ts';

/** The certificate and key of a client, and the authority that it trusts. */
export interface ClientFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

const directory = '/run/pki';

/**
 * Makes an authority, and keys for servers and clients. The client's certificate has no common name.
 * @param name of the authority, as in NAME.crt, NAME-server.key and NAME-client.crt.
 * @param addresses of the servers.
 */
export async function makeAuthority(
  host: Namespace,
  name: string,
  addresses: readonly string[],
): Promise<ClientFiles> {
  const curve = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes';
  const script = `mkdir -p ${directory}; cd ${directory}
    openssl req -x509 ${curve} -days 2 -subj /CN=${name} -keyout ${name}.key -out ${name}.crt
    printf 'subjectAltName=${addresses.map((address) => `IP:${address}`).join()}' > ${name}.san
    for who in server client; do
      openssl req ${curve} -subj /O=$who -keyout ${name}-$who.key -out ${name}-$who.csr
      openssl x509 -req -in ${name}-$who.csr -CA ${name}.crt -CAkey ${name}.key -CAcreateserial -days 2 \\
        -extfile ${name}.san -out ${name}-$who.crt
    done`;
  await host.run(['sh', '-ec', script]);
  const [ca, cert, key] = ['.crt', '-client.crt', '-client.key'].map((end) => `${directory}/${name}${end}`);
  return { ca: ca!, cert: cert!, key: key! };
}

/** Options of etcd(1) by which it serves only clients with a certificate of an authority. */
export function tlsOptions(name: string): string[] {
  return [
    ...[`--cert-file=${directory}/${name}-server.crt`, `--key-file=${directory}/${name}-server.key`],
    ...['--client-cert-auth', `--trusted-ca-file=${directory}/${name}.crt`],
  ];
}

/** Options of etcd(1) by which members ask the same of one another. */
export function peerTlsOptions(name: string): string[] {
  return tlsOptions(name).map((option) => `--peer-${option.slice(2)}`);
}

/** The keys of "ipam" for a client. */
export function tlsKeys({ ca, cert, key }: ClientFiles) {
  return { etcd_ca_cert_file: ca, etcd_cert_file: cert, etcd_key_file: key };
}

/** Copies all of it to another host. */
export async function copyAuthorities(from: Namespace, to: Namespace): Promise<void> {
  const archive = await from.run(['sh', '-ec', `tar -C ${directory} -c . | base64`]);
  const unpack = `mkdir -p ${directory}; base64 -d | tar -C ${directory} -x`;
  await to.run(['sh', '-ec', unpack], { stdin: archive });
}
