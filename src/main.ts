/**
 * The entry point: the layers of the service, which the command line runs. `start.cjs` loads this file once it has checked the
 * version of Node.
 */
import { Layer } from "effect"
import * as Supervisor from "./chain/Supervisor.ts"
import { main } from "./cli/main.ts"
import { Transport } from "./endpoint/Socket.ts"
import * as FleetLayer from "./fleet/FleetLayer.ts"
import * as ReportPublisher from "./http/ReportPublisher.ts"
import * as Server from "./http/Server.ts"
import * as Memory from "./Memory.ts"
import * as Observer from "./observability/Observer.ts"
import { Status } from "./observability/Status.ts"
import * as StorePoller from "./observability/StorePoller.ts"
import * as StoreLayer from "./store/StoreLayer.ts"

const service = Layer.mergeAll(
  Supervisor.layer,
  StorePoller.layer,
  ReportPublisher.layer,
  Server.layer,
  Memory.layer,
).pipe(
  Layer.provide(Observer.layer),
  Layer.provideMerge(Status.layer),
  Layer.provide(FleetLayer.layer),
  Layer.provideMerge(StoreLayer.layer),
  Layer.provide(Transport.layerNetwork),
)

main(service, process.argv.slice(2))
