/** nginx in a pod, which writes everything to the host's own /run. */

import { mkdirSync, writeFileSync } from 'node:fs';
import type { Host, Pod, Teardown } from './host.ts';
import { until } from './observe.ts';

/** Starts a server on port 80 of a pod; it runs until the test ends. @param servers its `server` blocks. */
export async function startNginx(t: Teardown, host: Host, pod: Pod, servers: string): Promise<void> {
  const directory = `/run/nginx-${pod.name}`;
  mkdirSync(host.file(directory));
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${directory}/${kind};`,
  );
  writeFileSync(
    host.file(`${directory}/conf`),
    `user root; daemon off; master_process off; pid ${directory}/pid; error_log stderr; events {}
    http { access_log off; ${temporary.join(' ')} ${servers} }`,
  );
  await pod.start(t, ['sh', '-c', `echo started; exec nginx -e stderr -p ${directory} -c conf`]);
  await until('nginx listens', async () => (await pod.run(['ss', '-Hltn', 'sport = 80'])) !== '');
}

/** A self-signed certificate for a name. */
export interface Certificate {
  /** Paths on the host. */
  readonly certificate: string;
  readonly key: string;
}

/** Makes a self-signed certificate, which clients verify by trusting it as a CA. */
export async function makeCertificate(host: Host, name: string): Promise<Certificate> {
  const [certificate, key] = [`/run/${name}.crt`, `/run/${name}.key`];
  await host.run([
    ...['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`, '-days', '1'],
    ...['-keyout', key, '-out', certificate],
  ]);
  return { certificate, key };
}
