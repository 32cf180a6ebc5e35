/** The DHCP options that a configuration asks for and sends. */

import { array, boolean, type Infer, integer, object, required, string } from '../../lib/cni/schema.ts';
import { Address } from '../../lib/ip.ts';
import type { ClientOptions } from './client.ts';
import { Option } from './packet.ts';

export const dhcpShape = {
  type: string(),
  daemonSocketPath: string({ description: 'Socket of the daemon; "/run/cni/dhcp.sock" by default.' }),
  request: array(
    object({
      option: string({ description: 'Name or number of an option to ask for.' }),
      skipDefault: boolean({ description: 'Do not ask for routers unless they are listed.' }),
    }),
    { description: 'Options to ask the server for, besides routers and netmask.' },
  ),
  provide: array(
    object({
      option: required(string({ description: 'Name or number of an option to send.' })),
      value: string({ description: 'Its value.' }),
      fromArg: string({ description: 'Name in CNI_ARGS whose value counts before "value".' }),
    }),
    { description: 'Options to send to the server.' },
  ),
  priority: integer({ max: 0xffffffff, description: 'Metric of the routes.' }),
};

const ipamSchema = object(dhcpShape);
export type DhcpConfig = Infer<typeof ipamSchema>;

const names: Record<string, number> = {
  'dhcp-client-identifier': Option.ClientIdentifier,
  'subnet-mask': Option.SubnetMask,
  routers: Option.Router,
  'host-name': Option.HostName,
  'user-class': Option.UserClass,
  'vendor-class-identifier': Option.VendorClass,
};

/** The options of the protocol itself, which a configuration must not override. */
const reserved: readonly number[] = [
  Option.MessageType,
  Option.ServerIdentifier,
  Option.RequestedAddress,
  Option.ParameterList,
  Option.Overload,
];

const longest = 255;
const longestIdentifier = 254;

/**
 * What a client sends along.
 * @param identity container ID, network and interface, which tell clients apart.
 * @param args CNI_ARGS.
 * @throws Error for an unknown option, or a value that does not fit.
 */
export function clientOptions(
  { request: wanted = [], provide = [] }: DhcpConfig,
  identity: string,
  args: Readonly<Record<string, string>>,
): ClientOptions {
  const skipDefault = wanted.some((one) => one.skipDefault);
  const asked = wanted.flatMap(({ option }) => (option ? [optionNumber(option)] : []));
  const given = new Map<number, Uint8Array>();
  for (const { option, value, fromArg } of provide) {
    const number = optionNumber(option);
    const text = (fromArg && args[fromArg]) || value;
    if (reserved.includes(number))
      throw new Error(`DHCP option "${option}" belongs to the protocol. Take it out of "ipam.provide"`);
    if (!text) continue;
    given.set(number, encodeValue(option, number, text));
  }
  const clientId = given.get(Option.ClientIdentifier) ?? defaultClientId(identity);
  given.delete(Option.ClientIdentifier);
  // There is no address without a netmask.
  const request = [Option.SubnetMask, ...(skipDefault ? [] : [Option.Router]), ...asked];
  return {
    clientId,
    request: [...new Set(request)],
    provide: given,
  };
}

/** Type 0, which is not a hardware address, and as much of the text as fits. */
function defaultClientId(identity: string): Uint8Array {
  return Uint8Array.of(0, ...Buffer.from(identity).subarray(0, longestIdentifier));
}

function optionNumber(option: string): number {
  const number = names[option] ?? (/^\d{1,3}$/.test(option) ? Number(option) : Number.NaN);
  if (number > 0 && number < 255) return number;
  throw new Error(
    `"${option}" is not a DHCP option. Use a number from 1 to 254, or one of ${Object.keys(names).join(', ')}`,
  );
}

function encodeValue(option: string, number: number, text: string): Uint8Array {
  if (number === Option.SubnetMask || number === Option.Router) {
    const addresses = text.split(',').map((item) => Address.tryParse(item.trim()));
    if (addresses.some((address) => address?.family !== 4))
      throw new Error(`DHCP option "${option}" is "${text}", but it must be an IPv4 address`);
    return Uint8Array.from(addresses.flatMap((address) => [...address!.toBytes()]));
  }
  const bytes = Buffer.from(text);
  if (bytes.length > longest)
    throw new Error(
      `DHCP option "${option}" has ${bytes.length} bytes where ${longest} fit. Shorten its value`,
    );
  return Uint8Array.from(bytes);
}
