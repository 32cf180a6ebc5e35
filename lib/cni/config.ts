/** The keys that every network configuration has. Source: specification, "Plugin configuration objects". */

import type { AttachmentId } from '../attachment.ts';
import { type Dns, dnsSchema } from './result.ts';
import { array, boolean, type InferShape, json, object, record, string } from './schema.ts';

/** Fields of {@link NetConf}, for plugins' own schemas to build on. */
export const netConfShape = {
  cniVersion: string({
    description: 'Version of the CNI specification that the configuration is written in.',
  }),
  name: string({ description: 'Name of the network, unique on the host.' }),
  type: string({ description: 'Name of the plugin executable.' }),
  capabilities: record(boolean(), { description: 'Capabilities whose arguments the runtime should pass.' }),
  ipam: object(
    { type: string({ description: 'Name of the IPAM plugin executable, such as "host-local".' }) },
    { description: 'Address management.' },
  ),
  dns: dnsSchema,
  args: json({ description: 'Arguments from the runtime; plugins read "cni" in it.' }),
  runtimeConfig: json({ description: 'Capability arguments, filled in by the runtime.' }),
  prevResult: json({ description: 'Result of the plugin before this one, filled in by the runtime.' }),
  'cni.dev/valid-attachments': json({
    description: 'Attachments that GC must keep, filled in by the runtime.',
  }),
  'cni.dev/attachments': json({ description: 'Older name of cni.dev/valid-attachments.' }),
};

/** The part of a network configuration that all plugins share. */
export type NetConf = InferShape<typeof netConfShape> & { cniVersion: string; name: string };

const validAttachmentsSchema = array(object({ containerID: string(), ifname: string() }));

/**
 * The attachments that GC must keep.
 * @returns undefined when the runtime named none at all, which means that nothing may be collected; an empty
 *   list means that no attachment is valid.
 * @throws SchemaError
 */
export function validAttachments(config: NetConf): AttachmentId[] | undefined {
  for (const key of ['cni.dev/valid-attachments', 'cni.dev/attachments'] as const) {
    const value = config[key];
    if (value === undefined) continue;
    return validAttachmentsSchema.decode(value, key).map(({ containerID = '', ifname = '' }) => ({
      network: config.name,
      containerId: containerID,
      ifname,
    }));
  }
  return undefined;
}

/**
 * The resolver settings of the result: the configuration's if it has any, else those of the IPAM plugin. A
 * list counts even when it is empty, as in the reference plugins.
 */
export function chooseDns(configured: Dns = {}, fromIpam: Dns = {}): Dns {
  const { nameservers, domain, search, options } = configured;
  return nameservers || domain || search || options ? configured : fromIpam;
}
