/** Hardhat does not start without one. */
export default {}
