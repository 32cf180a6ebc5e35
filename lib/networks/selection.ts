/**
 * Which networks a pod asks for, in either form of the annotation `k8s.v1.cni.cncf.io/networks`.
 * Source: Kubernetes Network Custom Resource Definition De-facto Standard, versions 1.1 to 1.3, section 4.1.
 */

import { ifnameProblem, isValidName } from '../cni/invocation.ts';
import { parseJson } from '../cni/json.ts';
import { addressSchema } from '../cni/result.ts';
import { array, decode, type Infer, json, object, record, required, string } from '../cni/schema.ts';
import type { Address } from '../ip.ts';

/** A network that a pod asks for, and how it wants to be attached. */
export interface Selection {
  /** Of the definition; "" for the pod's own. */
  readonly namespace: string;
  readonly name: string;
  /** Name of the interface; "" to have one chosen. */
  readonly ifname: string;
  /** Values by capability, such as "ips". */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
  /** CNI_ARGS, for plugins that do not read the capabilities. */
  readonly args: Readonly<Record<string, string>>;
  /** What is added to "args.cni" of each plugin. */
  readonly cniArgs: Readonly<Record<string, unknown>>;
  /**
   * Gateways of the pod's default routes, which go through this network; if the list is empty, its own
   * gateways.
   */
  readonly defaultRoute: readonly Address[] | undefined;
}

const elementSchema = object({
  name: required(string()),
  namespace: string(),
  interface: string(),
  // What Multus called it before its version 3.2, and still reads.
  interfaceRequest: string(),
  ips: array(string()),
  mac: string(),
  'infiniband-guid': string(),
  portMappings: array(json()),
  bandwidth: json(),
  deviceID: string(),
  'cni-args': record(json()),
  'default-route': array(addressSchema),
});

/**
 * Each of them is looked up, and whoever writes annotations must not be able to keep the node busy with that.
 */
const mostNetworks = 64;

/**
 * Reads the networks that a pod asks for.
 * @param text either `[NAMESPACE/]NAME[@INTERFACE]`, several separated by commas, or a JSON list.
 * @param where the text comes from, for errors.
 * @throws Error
 */
export function parseSelections(text: string, where: string): Selection[] {
  try {
    // A JSON list that was cut short must not be taken for names.
    const selections = /[[{"]/.test(text) ? parseList(text) : parseNames(text);
    if (selections.length > mostNetworks)
      throw new Error(
        `it names ${selections.length} networks, and a pod may have ${mostNetworks}. Shorten it`,
      );
    return selections;
  } catch (error) {
    throw new Error(`${where} cannot be used: ${(error as Error).message}`, { cause: error });
  }
}

function parseNames(text: string): Selection[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(parseShort);
}

/** A selection that says no more than the network. @throws Error when a name is not valid. */
export function selectionOf(name: string, ifname = '', namespace = ''): Selection {
  return checked({
    namespace,
    name,
    ifname,
    capabilityArgs: {},
    args: {},
    cniArgs: {},
    defaultRoute: undefined,
  });
}

function parseShort(text: string): Selection {
  const [, namespace = '', name = '', ifname] = /^(?:([^/@]*)\/)?([^/@]*)(?:@(.*))?$/.exec(text) ?? [];
  if (name === '' || (text.includes('/') && namespace === '') || ifname === '')
    throw new Error(`"${text}" must be [NAMESPACE/]NETWORK[@INTERFACE], as in "storage/fast@net1"`);
  return selectionOf(name, ifname, namespace);
}

function parseList(text: string): Selection[] {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    throw new Error(`it is neither a list of names nor JSON (${(error as Error).message})`);
  }
  return decode(array(elementSchema), value, 'networks').map(fromElement);
}

function fromElement(element: Infer<typeof elementSchema>): Selection {
  const { name, namespace = '', ips, mac, portMappings, bandwidth, deviceID } = element;
  const ifname = element.interface || element.interfaceRequest || '';
  const values = { ips, mac, portMappings, bandwidth, deviceID, infinibandGUID: element['infiniband-guid'] };
  const isGiven = ([, value]: [string, unknown]) => value !== undefined && value !== null;
  return checked({
    ...{ namespace, name, ifname },
    capabilityArgs: Object.fromEntries(Object.entries(values).filter(isGiven)),
    args: { ...(ips?.length && { IP: ips.join(',') }), ...(mac && { MAC: mac }) },
    cniArgs: element['cni-args'] ?? {},
    defaultRoute: element['default-route'],
  });
}

/** Refuses invalid names and values, as they become parts of paths and of the environment. */
function checked(selection: Selection): Selection {
  const { namespace, name, ifname, args } = selection;
  for (const [what, text] of [
    ['namespace', namespace || 'default'],
    ['network', name],
  ] as const)
    if (!isValidName(text))
      throw new Error(
        `the ${what} "${text.slice(0, 80)}" must begin with a letter or digit and go on with letters, digits, "_", "." or "-"`,
      );
  const problem = ifname && ifnameProblem(ifname);
  if (problem) throw new Error(`the interface "${ifname.slice(0, 80)}" of network "${name}" ${problem}`);
  for (const [key, value] of Object.entries(args))
    if (/[;=]/.test(value))
      throw new Error(
        `"${key === 'IP' ? 'ips' : 'mac'}" of network "${name}" is "${value.slice(0, 80)}", which has ";" or "="`,
      );
  return selection;
}
