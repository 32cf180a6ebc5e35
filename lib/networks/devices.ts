/**
 * Devices that the kubelet has allocated to a pod from device plugins. It records them before it has the
 * pod's sandbox created. Source: type checkpointData of Kubernetes' pkg/kubelet/cm/devicemanager/checkpoint.
 */

import { join } from 'node:path';
import { parseJson } from '../cni/json.ts';
import { array, decode, object, record, string } from '../cni/schema.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { readRegularFile } from '../file.ts';
import { isObject } from '../object.ts';
import type { NetworkList } from './conflist.ts';

const checkpoint = '/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint';
const infoDirectory = '/var/run/k8s.cni.cncf.io/devinfo/dp';
/** Largest checkpoint that is accepted, in bytes. */
const largestCheckpoint = 16 * 1024 * 1024;

const checkpointSchema = object({
  Data: object({
    PodDeviceEntries: array(
      object({
        PodUID: string(),
        ResourceName: string(),
        // Keyed by the number of the NUMA node.
        DeviceIDs: record(array(string())),
      }),
    ),
  }),
});

/** A device of a pod. */
interface Device {
  /** As in "0000:03:02.0", the address of a PCI device. */
  readonly id: string;
  /** What its device plugin says about it; undefined when it says nothing. */
  readonly info: object | undefined;
}

/** The devices of a pod, each of which goes to one network. */
export class Devices {
  private readonly podUid: string;
  private readonly file: string;
  private readonly left = new Map<string, string[]>();

  /** @param podUid of the pod as the kubelet knows it. @param file in which the kubelet records them. */
  constructor(podUid: string, file = checkpoint) {
    this.podUid = podUid;
    this.file = file;
  }

  /**
   * Takes a device of a resource.
   * @returns undefined when the pod has none left.
   * @throws CniError when it cannot be known which devices the pod has.
   */
  next(resourceName: string): Device | undefined {
    let left = this.left.get(resourceName);
    if (!left) {
      left = this.read(resourceName);
      this.left.set(resourceName, left);
    }
    const id = left.shift();
    return id === undefined ? undefined : { id, info: infoOf(resourceName, id) };
  }

  private read(resourceName: string): string[] {
    try {
      const text = readRegularFile(this.file, { followLink: true, limit: largestCheckpoint });
      const { Data = {} } = decode(checkpointSchema, parseJson(text), 'checkpoint');
      return (Data.PodDeviceEntries ?? [])
        .filter((one) => one.PodUID === this.podUid && one.ResourceName === resourceName)
        .flatMap(({ DeviceIDs = {} }) => Object.values(DeviceIDs).flat())
        .sort();
    } catch (error) {
      throw new CniError(
        ErrorCode.TryAgainLater,
        `The devices of resource "${resourceName}" are not known, as the kubelet's "${this.file}" cannot be used. See that the kubelet and the device plugin run, or remove the annotation "k8s.v1.cni.cncf.io/resourceName" of the network`,
        (error as Error).message,
      );
    }
  }
}

/**
 * What a device plugin has recorded about a device. Source: Device Information Specification 1.1.0 of the
 * Network Plumbing Working Group.
 */
function infoOf(resourceName: string, id: string): object | undefined {
  const name = `${resourceName}-${id}-device.json`.replaceAll('/', '-');
  try {
    const value = parseJson(readRegularFile(join(infoDirectory, name)));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined; // Few device plugins write it.
  }
}

/** A network whose plugins work on a device: they look for it under either of two names. */
export function withDevice(network: NetworkList, { id }: Device): NetworkList {
  const plugins = network.plugins.map((plugin) => ({
    ...plugin,
    config: { ...plugin.config, deviceID: id, pciBusID: id },
  }));
  return { ...network, plugins };
}
