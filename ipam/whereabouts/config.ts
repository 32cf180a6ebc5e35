/** What whereabouts is configured with: by the network, by its flat file, and by the runtime. */

import { withFlatFile } from '../../lib/cni/flat-file.ts';
import { addressSchema, dnsSchema, routeSchema } from '../../lib/cni/result.ts';
import {
  array,
  boolean,
  convert,
  type InferShape,
  integer,
  object,
  string,
  withDefault,
} from '../../lib/cni/schema.ts';
import { Address, Prefix } from '../../lib/ip.ts';

const exclude = array(string(), {
  description: 'Addresses and networks, such as "10.1.0.0/29", that are not given away.',
});

/** Fixed address, with prefix length. */
const fixedSchema = convert(string(), (text) => Prefix.parse(decimal(text)), { examples: ['10.1.0.5/16'] });

const rangeShape = {
  range: string({
    description: 'Network whose addresses are given away, as in "10.1.0.0/16" or "10.1.0.10-10.1.0.90/16".',
  }),
  range_start: string({ description: 'First address of the range that is given away.' }),
  range_end: string({ description: 'Last address of the range that is given away.' }),
  exclude,
};

/** Keys of whereabouts that mean nothing here: no lock is taken, and logging is that of this suite. */
const ignored = {
  log_file: string({ description: 'Has no effect: see "CNI_LOG".' }),
  log_level: string({ description: 'Has no effect: see "CNI_LOG".' }),
  leader_lease_duration: integer({ description: 'Has no effect: no lock is taken.' }),
  leader_renew_deadline: integer({ description: 'Has no effect: no lock is taken.' }),
  leader_retry_period: integer({ description: 'Has no effect: no lock is taken.' }),
  sleep_for_race: integer({ description: 'Has no effect: no lock is taken.' }),
  datastore: string({ description: 'Has no effect: "etcd_host" or "kubernetes.kubeconfig" says it.' }),
};

const ipam = object({
  type: string(),
  ...rangeShape,
  ipRanges: array(object(rangeShape), {
    description: 'Further ranges; every container gets an address of each.',
  }),
  gateway: convert(string(), (text) => Address.parse(decimal(text)), {
    emptyIsAbsent: true,
    examples: ['10.1.0.1'],
  }),
  routes: array(routeSchema, { description: 'Routes for the container.' }),
  dns: dnsSchema,
  addresses: array(object({ address: fixedSchema, gateway: addressSchema }), {
    description: 'Fixed addresses for the container, which are not reserved.',
  }),
  network_name: string({
    description:
      'Ranges of networks with different names may overlap. Without it, those of all others may not.',
  }),
  enable_overlapping_ranges: boolean({
    description: 'Whether an address is given away once, even if several ranges have it; true by default.',
  }),
  quarantine: integer({
    max: 365 * 24 * 3600,
    description:
      'Seconds for which an address that was released goes to no other pod; one of the same name gets it back. 0 by default.',
  }),
  etcd_host: string({
    description: 'Members of etcd, as in "192.0.2.1:2379" or "https://etcd-1:2379,https://etcd-2:2379".',
  }),
  etcd_username: string({ description: 'User of etcd.' }),
  etcd_password: string({ description: 'Password of that user.' }),
  etcd_key_file: string({ description: 'File with the private key for TLS, in PEM.' }),
  etcd_cert_file: string({ description: 'File with the certificate for TLS, in PEM.' }),
  etcd_ca_cert_file: string({ description: "File with the authority of etcd's certificates, in PEM." }),
  kubernetes: object(
    {
      kubeconfig: string({ description: 'File that says where the Kubernetes API is, and how to log in.' }),
      k8s_api_root: string({ description: 'Has no effect: the kubeconfig says where the API is.' }),
    },
    { description: 'Keeps addresses in objects of the Kubernetes API. Not used if "etcd_host" is set.' },
  ),
  node_slice_size: string({
    description:
      'Gives each node a part of the range of this size, as in "/28", by the NodeSlicePool of the network. Not with etcd.',
  }),
  configuration_path: string({ description: 'File with further keys, which count less than those here.' }),
  ...ignored,
});

const ips = array(
  string({ description: 'Address to ask for, with or without prefix length, if a range has it.' }),
);

export const config = {
  ipam: withDefault(ipam, {}),
  runtimeConfig: object({ ips }),
  args: object({
    cni: object({
      ips,
      'ipam-claim-reference': string({ description: 'Claim that an address belongs to, in place of a pod.' }),
    }),
  }),
};

export type Config = InferShape<typeof config>;
export type Ipam = Config['ipam'];

/** Directories of whereabouts, of which the first that has a file is used. */
const directories = ['/etc/kubernetes/cni/net.d/whereabouts.d', '/etc/cni/net.d/whereabouts.d'];

/** The files that may tell the name of the node, apart from the variable NODENAME. */
export const nodeNameFiles = [...directories.map((directory) => `${directory}/nodename`), '/etc/hostname'];

// As in whereabouts, only the network's own configuration sets this one: all nodes must agree on it.
const { enable_overlapping_ranges: _, ...flatShape } = ipam.shape;

/** The keys under "ipam", with those of the flat file. @throws as {@link withFlatFile}. */
export function sharedIpam({ ipam: own }: Config): Ipam {
  return withFlatFile(
    own,
    object(flatShape),
    directories.map((directory) => `${directory}/whereabouts.conf`),
  );
}

/** Text with addresses, without leading zeros: whereabouts reads "10.1.0.010" as "10.1.0.10". */
export function decimal(text: string): string {
  return text.replaceAll(/(?<![0-9a-fA-F:])0+(?=\d)/g, '');
}
