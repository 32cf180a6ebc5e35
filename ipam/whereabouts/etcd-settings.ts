/** How the etcd_* keys lead to a cluster. */

import type { EtcdSettings } from '../../lib/etcd/client.ts';
import { parseEndpoints, readPem } from '../../lib/etcd/endpoint.ts';
import type { Endpoint, Tls } from '../../lib/http.ts';
import type { Ipam } from './config.ts';

/**
 * Where etcd is.
 * @throws CniError for a key or certificate that cannot be read; Error for an invalid address.
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

/** The configured members. @throws Error for an invalid address. */
export function endpointsOf(ipam: Ipam): Endpoint[] {
  const { etcd_host = '' } = ipam;
  const usesTls = Boolean(ipam.etcd_ca_cert_file || ipam.etcd_cert_file);
  const endpoints = parseEndpoints('etcd_host', etcd_host, usesTls);
  if (endpoints.length > 0) return endpoints;
  throw new Error(
    '"ipam" has no "etcd_host" and no "kubernetes.kubeconfig", one of which keeps the addresses. Set the first to the members of etcd, such as "192.0.2.1:2379", or the second to a kubeconfig, here or in a file that "configuration_path" names',
  );
}
