-- Run once, by an empty server: one database for each product.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
