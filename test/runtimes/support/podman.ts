/** podman on a node, told to use CNI and our plugins, with its images, containers and networks to itself. */

import { execFileSync } from 'node:child_process';
import test from 'ava';
import { cleanEnv } from '../../support/run.ts';
import { type Node, pluginDir } from './node.ts';

const version = execFileSync('podman', ['--version'], { env: cleanEnv, encoding: 'utf8' });

/** A test for podman with CNI: from version 5 on, it is skipped, and counted as skipped. */
export const podmanTest = Number(/\d+/.exec(version)![0]) < 5 ? test : test.skip;

const directory = '/run/podman-test';
/** Where `podman network create` puts conflists. */
export const networkDirectory = `${directory}/networks`;

const configuration = `
[containers]
default_ulimits = []
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "${directory}/tmp"
# Not shared memory, which is the whole machine's: two that make it at once fail.
lock_type = "file"
[network]
network_backend = "cni"
cni_plugin_dirs = ["${pluginDir}"]
network_config_dir = "${networkDirectory}"
`;

const storage = `
[storage]
driver = "overlay"
graphroot = "${directory}/root"
runroot = "${directory}/run"
`;

/** What the tests look at in `podman inspect`, for one network of a container. */
export interface PodmanNetwork {
  IPAddress: string;
  GlobalIPv6Address: string;
  MacAddress: string;
}

/** podman's command line. */
export class Podman {
  private readonly node: Node;

  private constructor(node: Node) {
    this.node = node;
  }

  /** Configures podman on a node, with the web image. */
  static async prepare(node: Node): Promise<Podman> {
    node.write(`${directory}/containers.conf`, configuration);
    node.write(`${directory}/storage.conf`, storage);
    node.write(`${networkDirectory}/README`, 'podman keeps its networks here.\n');
    const podman = new Podman(node);
    await podman.run('load', '--quiet', '--input', '/run/web.tar');
    return podman;
  }

  /**
   * Runs `podman …`.
   * @returns its standard output.
   * @throws Error with all that it printed unless it succeeds.
   */
  async run(...args: string[]): Promise<string> {
    const env = {
      CONTAINERS_CONF: `${directory}/containers.conf`,
      CONTAINERS_STORAGE_CONF: `${directory}/storage.conf`,
    };
    return (await this.node.run(['podman', ...args], { env })).trim();
  }

  /**
   * Runs a container in the background.
   * @param options of `podman run`; the image and its command come after them.
   */
  async runContainer(name: string, options: readonly string[], image: readonly string[]): Promise<void> {
    const cgroup = `--cgroup-parent=${this.node.cgroup}`;
    await this.run('run', '--detach', '--name', name, cgroup, ...options, ...image);
  }

  /** How a container is attached to a network. */
  async networkOf(container: string, network: string): Promise<PodmanNetwork> {
    const [found] = JSON.parse(await this.run('inspect', container)) as [
      { NetworkSettings: { Networks: Record<string, PodmanNetwork> } },
    ];
    return found.NetworkSettings.Networks[network]!;
  }
}
