/** How the etcd_* keys lead to a cluster. */

import { CniError, ErrorCode } from '../../lib/errors.ts';
import type { EtcdSettings } from '../../lib/etcd/client.ts';
import { readRegularFile } from '../../lib/file.ts';
import type { Endpoint, Tls } from '../../lib/http.ts';
import type { Ipam } from './config.ts';

const defaultPort = 2379;

/**
 * Where etcd is.
 * @throws CniError for a key or certificate that cannot be read; Error for an address that makes no sense.
 */
export function etcdSettings(ipam: Ipam): EtcdSettings {
  const tls: Tls = {
    ca: readPem('etcd_ca_cert_file', ipam.etcd_ca_cert_file),
    cert: readPem('etcd_cert_file', ipam.etcd_cert_file),
    key: readPem('etcd_key_file', ipam.etcd_key_file),
  };
  const { etcd_username: username, etcd_password: password } = ipam;
  return { endpoints: endpointsOf(ipam), username, password, tls };
}

/** The members that are configured. @throws Error for an address that makes no sense. */
export function endpointsOf(ipam: Ipam): Endpoint[] {
  const { etcd_host = '' } = ipam;
  const usesTls = Boolean(ipam.etcd_ca_cert_file || ipam.etcd_cert_file);
  const endpoints = etcd_host
    .split(',')
    .map((text) => text.trim())
    .filter(Boolean)
    .map((text) => parseEndpoint(text, usesTls));
  if (endpoints.length > 0) return endpoints;
  throw new Error(
    '"ipam" has no "etcd_host" and no "kubernetes.kubeconfig", one of which keeps the addresses. Set the first to the members of etcd, such as "192.0.2.1:2379", or the second to a kubeconfig',
  );
}

function parseEndpoint(text: string, usesTls: boolean): Endpoint {
  const [, scheme, v6, name, port = `${defaultPort}`] =
    /^(?:(https?):\/\/)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::(\d{1,5}))?\/?$/.exec(text) ?? [];
  const host = v6 ?? name;
  if (!host || Number(port) < 1 || Number(port) > 65535)
    throw new Error(
      `"etcd_host" names ${JSON.stringify(text.slice(0, 200))}. Write it like "192.0.2.1:2379" or "https://etcd-1:2379"`,
    );
  const isSecure = scheme ? scheme === 'https' : usesTls;
  const shown = v6 ? `[${v6}]` : host;
  return { isSecure, host, port: Number(port), origin: `${isSecure ? 'https' : 'http'}://${shown}:${port}` };
}

function readPem(key: string, file: string | undefined): string | undefined {
  if (!file) return undefined;
  try {
    return readRegularFile(file, { followLink: true });
  } catch (error) {
    throw new CniError(
      ErrorCode.IOFailure,
      `"${key}" is "${file}", which cannot be read. Correct it, or put the file there`,
      (error as Error).message,
    );
  }
}
